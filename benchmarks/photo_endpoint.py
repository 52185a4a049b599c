"""The endpoint of benchmarks/photo_world.py: it describes photos by their colours and "draws" by showing others.

    python benchmarks/photo_endpoint.py --photos FOLDER --clip FOLDER --wrong 0.2 --port 8000

It speaks the HTTP API of embedded/endpoint.py. The language model knows which looks the photos to be drawn from
have, and lists those that are not listed yet. The text-to-image model shows the photo that fits the prompt best,
cropped and mirrored by the request's seed, or at times one of another class. An edit lays its detail over a photo.
"""

import io
import re
import sys
import threading
from collections import Counter
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import open_clip
import torch
from numpy.random import Generator
from photo_clip import square
from photo_words import VIEWS, Look, describe, look, read
from PIL import Image, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo

from embedded import endpoint
from embedded.styles import STYLES, restyle

SOURCE = "source"  # the PNG text chunk with the class of the photo that was shown; nothing that decides reads it
COARSEST = 0.25  # of the side: the blur that what is kept of a photo is beyond, as `strength` comes near 1
ENTRY = re.compile(r"^\d+\. (A photo of the class .+)$", re.M)


class Photos:
    """The models, from class folders of photos."""

    chat, t2i = "photo-teller", "photo-painter"

    def __init__(self, folder: Path, clip: Path, wrong: float) -> None:
        """wrong: the share of drawings of another class."""
        self.wrong, self._clip = wrong, clip
        self.names = sorted(path.name for path in folder.iterdir())
        self.photos = {name: [_open(path) for path in sorted((folder / name).iterdir())] for name in self.names}
        self.looks = {name: [look(photo) for photo in photos] for name, photos in self.photos.items()}
        self._one_at_a_time = threading.Lock()

    def reply(self, text: str, images: list[Image.Image], rng: Generator) -> str:
        if "Which of these classes" in text:
            return self._identify(images[-1])
        name = self._class_in(text)
        if images:
            return describe(name, look(square(images[-1])))
        if "list other distinctive" in text:
            return self._list_other(name, text, rng)
        if "Please exclude" in text:
            return _without_repeats(text)
        if "Template 2" in text:
            colours = [colour for colour, _ in Counter(seen.colour for seen in self.looks[name]).most_common(2)]
            return f"A photo of the class {name} with {{a {' or '.join(colours)} look}}."
        if "refine it" in text:
            return describe(name, self._any_look(name, rng))
        raise endpoint.APIError("there is no answer to this question")

    def paint(self, prompt: str, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
        return _png(*self._drawn(prompt, size, style, rng))

    def edit(
        self,
        prompt: str,
        photo: Image.Image,
        strength: float,
        size: tuple[int, int],
        style: str | None,
        rng: Generator,
    ) -> bytes:
        """What is coarse in `photo`, with the fine detail of what `paint` shows: the stronger, the coarser.

        Image-to-image by diffusion starts from a photo with noise, which hides detail first. At 1 it is `paint`.
        """
        drawn, name = self._drawn(prompt, size, style, rng)
        if strength < 1:
            blur = ImageFilter.GaussianBlur(COARSEST * max(size) * strength**2)
            old, new, coarse = (
                np.asarray(image, dtype=np.float64)
                for image in (photo.resize(size).filter(blur), drawn, drawn.filter(blur))
            )
            drawn = Image.fromarray(np.clip(old + new - coarse, 0, 255).astype(np.uint8))
        return _png(drawn, name if strength >= 0.5 else self._class_in(prompt))

    def _drawn(
        self, prompt: str, size: tuple[int, int], style: str | None, rng: Generator
    ) -> tuple[Image.Image, str]:
        """The image, and the class of the photo that it shows."""
        name = self._class_in(prompt)
        if rng.random() < self.wrong:
            name = str(rng.choice([other for other in self.names if other != name]))
        wanted = read(prompt)
        fits = [sum(getattr(seen, axis) == value for axis, value in wanted.items()) for seen in self.looks[name]]
        best = [i for i, fit in enumerate(fits) if fit == max(fits)]
        photo = self.photos[name][int(rng.choice(best))]
        zoom = rng.uniform(0.5, 0.7) if wanted["view"] == VIEWS[1] else rng.uniform(0.85, 1)
        side = round(zoom * photo.width)
        left, top = rng.integers(0, photo.width - side + 1, 2)
        image = photo.crop((left, top, left + side, top + side))
        image = (ImageOps.mirror(image) if rng.random() < 0.5 else image).resize(size)
        return image if style is None else restyle(image, STYLES[style], rng), name

    def _class_in(self, text: str) -> str:
        """The class that a question or a description is about."""
        for name in sorted(self.names, key=len, reverse=True):
            if f'class "{name}"' in text or f"of the class {name}," in text or text.endswith(f"class {name}."):
                return name
        raise endpoint.APIError("names none of the classes that are known here")

    def _list_other(self, name: str, text: str, rng: Generator) -> str:
        listed = {tuple(sorted(read(entry).items())) for entry in ENTRY.findall(text)}
        wanted = re.search(r"up to (\d+) descriptions", text)
        lines: list[str] = []
        rivals = self._rivals_in(text)
        for _ in range(20 * min(10, int(wanted[1]) if wanted else 10)):
            seen = self._any_look(name, rng)
            if rivals and max(self._share(rival, seen) for rival in rivals) > self._share(name, seen):
                continue
            line = describe(name, seen)
            key = tuple(sorted(read(line).items()))
            if key not in listed and len(lines) < 10:
                listed.add(key)
                lines.append(line)
        return "\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1)) or "I can think of no others."

    def _rivals_in(self, text: str) -> list[str]:
        """The classes that a question says its own is often taken for."""
        said = re.search(r"often taken for ([^:]+):", text)
        return [name for name in re.findall(r'"([^"]+)"', said[1]) if name in self.looks] if said else []

    def _share(self, name: str, wanted: Look) -> float:
        """How much of the class has the colour and the pattern of `wanted`."""
        looks = self.looks[name]
        return sum((seen.colour, seen.pattern) == (wanted.colour, wanted.pattern) for seen in looks) / len(looks)

    def _any_look(self, name: str, rng: Generator) -> Look:
        looks = self.looks[name]
        return looks[int(rng.integers(len(looks)))]._replace(view=str(rng.choice(VIEWS)))

    def _identify(self, image: Image.Image) -> str:
        model, preprocess, tokenize = self._eyes
        with self._one_at_a_time, torch.inference_mode():
            texts = model.encode_text(tokenize([f"A photo of the class {n}." for n in self.names]), normalize=True)
            seen = model.encode_image(preprocess(image)[None], normalize=True)
        return self.names[int((seen @ texts.T).argmax())]

    @cached_property
    def _eyes(self) -> tuple:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{self._clip}")
        return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{self._clip}")


def _png(image: Image.Image, source: str) -> bytes:
    file, chunk = io.BytesIO(), PngInfo()
    chunk.add_text(SOURCE, source)
    image.save(file, "PNG", pnginfo=chunk)
    return file.getvalue()


def _open(path: Path) -> Image.Image:
    return square(Image.open(path).convert("RGB"))


def _without_repeats(text: str) -> str:
    said, kept = set(), []
    for entry in ENTRY.findall(text):
        key = tuple(sorted(read(entry).items()))
        if key not in said:
            kept.append(entry)
        said.add(key)
    return "\n".join(f"{n}. {entry}" for n, entry in enumerate(kept, 1))


def main() -> None:
    parser = endpoint.parser()
    parser.add_argument("--photos", type=Path, required=True, help="class folders to draw from")
    parser.add_argument("--clip", type=Path, required=True, help="what the vision model tells classes with")
    parser.add_argument("--wrong", type=float, default=0.2, help="share of drawings of another class")
    args = parser.parse_args()
    torch.set_num_threads(1)
    endpoint.serve(endpoint.make_app(Photos(args.photos, args.clip, args.wrong)), args)


if __name__ == "__main__":
    main()
