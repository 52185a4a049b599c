"""The embedded vision model: it sees pixels through the small CLIP and tells the features it takes them for."""

from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from embedded import words
from embedded.wildflowers import AXES, SCENES, Flower

CLIP = Path(__file__).parent / "clip"
PHRASINGS = 4  # texts a value, averaged


class Eyes:
    """Tags an image with one value on every axis, by the nearest of CLIP's text features."""

    def __init__(self, folder: Path = CLIP) -> None:
        torch.set_num_threads(1)  # one image at a time, many requests at once
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.features = {form: self._axes(form) for form in AXES["form"]}
        self.forms = torch.stack([self._text([("form", form)], form) for form in AXES["form"]])

    def _axes(self, form: str) -> dict[str, tuple[tuple[str, ...], torch.Tensor]]:
        axes = {}
        for axis in ("count", "shape", "colour", "accent", "leaves", "scene"):
            options = SCENES if axis == "scene" else AXES[axis]
            if axis == "count":
                options = options[1:] if form == "open" else options[:1]
            axes[axis] = (options, torch.stack([self._text([(axis, value)], form) for value in options]))
        return axes

    @torch.inference_mode()
    def _text(self, said: list[tuple[str, str]], form: str) -> torch.Tensor:
        """The mean unit feature of some phrasings of the values in `said`, of a flower of this form."""
        rng = np.random.default_rng(0)
        values = {axis: options[0] for axis, options in AXES.items()} | {"form": form} | dict(said)
        axes = [axis for axis, _ in said if axis != "scene"]
        texts = []
        for _ in range(PHRASINGS):
            text = f"A photo of {words.put(values, rng, axes)}"
            texts.append(text + (f" {words.put_scene(values['scene'], rng)}." if "scene" in values else "."))
        return self.model.encode_text(self.tokenize(texts), normalize=True).mean(0)

    @torch.inference_mode()
    def look(self, image: Image.Image) -> Flower:
        pixels = self.preprocess(image.convert("RGB")).unsqueeze(0)
        seen = self.model.encode_image(pixels, normalize=True)[0]
        form = AXES["form"][int((self.forms @ seen).argmax())]
        values = {
            axis: options[int((texts @ seen).argmax())] for axis, (options, texts) in self.features[form].items()
        }
        return Flower(form=form, **values)


@cache
def eyes() -> Eyes:
    return Eyes()
