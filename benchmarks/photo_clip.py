"""A small CLIP for benchmarks/photo_world.py: of photos that the rest of it never uses, with true captions.

It is built and trained as embedded/pretrain.py does, with the class among what the captions tell, in one process.
"""

import json
import math
from pathlib import Path

import numpy as np
import open_clip
import photo_words
import torch
from numpy.random import Generator
from PIL import Image
from rich.progress import track
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from embedded import pretrain
from embedded.captions import CONTEXT, train_tokenizer

SIDE, BATCH, LR, CAPTIONED = 96, 128, 1e-3, 64
AXES = ["name", *photo_words.OPTIONS]


def train(folder: Path, out: Path, steps: int) -> None:
    """A CLIP of the images in `folder`'s class folders, saved in `out` as open_clip reads it."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    names = sorted(path.name for path in folder.iterdir())
    files = [(path, name) for name in names for path in sorted((folder / name).iterdir())]
    pixels, looks = read([path for path, _ in files])
    values = torch.tensor([codes(names.index(name), seen) for (_, name), seen in zip(files, looks, strict=True)])
    of_class = [np.flatnonzero((values[:, 0] == label).numpy()) for label in range(len(names))]

    def captioned(rows: np.ndarray, close: np.ndarray) -> tuple[list[str], Tensor]:
        told = [
            caption(files[row][1], looks[row]._replace(view=photo_words.VIEWS[int(near)]), rng)
            for row, near in zip(rows, close, strict=True)
        ]
        return [text for text, _ in told], torch.tensor([said for _, said in told])

    every = rng.integers(0, len(files), 20_000)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(out, captioned(every, rng.random(len(every)) < 0.5)[0])
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT)
    model = make_model(out, tokenizer)
    sizes = [len(names), *map(len, photo_words.OPTIONS.values())]
    loss_of = pretrain.Loss(model, tokenizer, sizes)
    parameters = list(loss_of.parameters())
    optimizer = pretrain.make_optimizer(parameters, LR)

    for step in track(range(steps), "train CLIP"):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        # Half class-balanced: of a rare class, too, it reads more than the name.
        balanced = [rng.choice(of_class[label]) for label in rng.integers(0, len(names), BATCH // 2)]
        rows = np.array([*balanced, *rng.integers(0, len(files), BATCH - len(balanced))])
        rng.shuffle(rows)
        close = rng.random(BATCH) < 0.5
        texts, said = captioned(rows[:CAPTIONED], close[:CAPTIONED])
        shown = values[rows].clone()
        shown[:, AXES.index("view")] = torch.from_numpy(close).long()
        features, contrasted = loss_of(crops(pixels[rows], close, rng), shown, texts, said)
        optimizer.zero_grad()
        (features + contrasted).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    save_file(model.eval().state_dict(), out / "open_clip_model.safetensors")


def make_model(out: Path, tokenizer: Tokenizer) -> open_clip.CLIP:
    """The embedded CLIP's architecture. Its image tower begins with that one's weights: 2,000 photos are few."""
    config = pretrain.model_config(tokenizer.get_vocab_size())
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = open_clip.create_model(f"local-dir:{out}", load_weights=False).train()
    begun = open_clip.create_model(f"local-dir:{pretrain.OUT}")
    model.visual.load_state_dict(begun.visual.state_dict())
    return model


def read(paths: list[Path]) -> tuple[Tensor, list[photo_words.Look]]:
    """(N, 3, SIDE, SIDE) uint8, the middle square of each photo; and what it shows."""
    pixels, looks = [], []
    for path in paths:
        image = square(Image.open(path).convert("RGB"))
        looks.append(photo_words.look(image))
        pixels.append(torch.from_numpy(np.array(image.resize((SIDE, SIDE)))).permute(2, 0, 1))
    return torch.stack(pixels), looks


def square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def codes(label: int, seen: photo_words.Look) -> list[int]:
    return [label, *(options.index(getattr(seen, axis)) for axis, options in photo_words.OPTIONS.items())]


def caption(name: str, seen: photo_words.Look, rng: Generator) -> tuple[str, list[bool]]:
    """A caption in the shapes of Templates 1 and 2, and what it tells, in the order of AXES."""
    often = rng.choice([0.0, 0.4, 0.9])
    said = {axis for axis in photo_words.OPTIONS if rng.random() < often}
    if seen.view == "whole":
        said.discard("view")  # there is no word for it
    named = rng.random() < 0.9
    opening = str(rng.choice(["A photo of the class", "A photo of a"])) + f" {name}" if named else "A photo"
    parts = [photo_words.features(seen, said), photo_words.scene(seen, said)]
    text = " ".join([opening, *filter(None, parts)]) + "."
    return text.replace(" with", ", with", int(rng.integers(2))), [named, *(a in said for a in AXES[1:])]


def crops(images: Tensor, close: np.ndarray, rng: Generator) -> Tensor:
    """(N, 3, SIDE, SIDE) uint8 -> (N, 3, 64, 64), normalised: cropped, mirrored, other light."""
    count = len(images)
    zoom = torch.from_numpy(np.where(close, rng.uniform(0.5, 0.7, count), rng.uniform(0.8, 1.0, count))).float()
    shift = torch.from_numpy(rng.uniform(-1, 1, (count, 2))).float() * (1 - zoom)[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = zoom * torch.from_numpy(rng.choice([-1.0, 1.0], count)).float()
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [count, 3, 64, 64], align_corners=False)
    sampled = F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")
    light = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1, 1, 1))).float()
    normalised = (sampled * light / 255).clamp(0, 1) - torch.tensor(pretrain.MEAN).view(3, 1, 1)
    return normalised / torch.tensor(pretrain.STD).view(3, 1, 1)


@torch.inference_mode()
def zero_shot(model: open_clip.CLIP, out: Path, folder: Path) -> float:
    """Mean accuracy (%) over the classes of the photos in `folder`, by the bare names."""
    tokenize = open_clip.get_tokenizer(f"local-dir:{out}")
    names = sorted(path.name for path in folder.iterdir())
    texts = model.encode_text(tokenize([f"A photo of the class {name}." for name in names]), normalize=True)
    hits = []
    for label, name in enumerate(names):
        images, _ = read(sorted((folder / name).iterdir()))
        inputs = pretrain.to_input(
            F.interpolate(images.float(), 64, mode="area").byte().permute(0, 2, 3, 1).numpy()
        )
        predicted = (model.encode_image(inputs, normalize=True) @ texts.T).argmax(1)
        hits.append((predicted == label).float().mean().item())
    return round(100 * float(np.mean(hits)), 1)
