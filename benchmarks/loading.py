"""How fast training images come from JPEG files: 224 px, random resized crop, flip; against torchvision.

    python benchmarks/loading.py        # about 2 minutes

Both sides read the same files through torch's DataLoader with the same number of workers, crop squares of the
same sizes with the same filter, and give batches of 8-bit tensors; "normalised" is what most training scripts do
instead, floats with CLIP's mean and deviation. Photos are drawn: noise at several scales, which takes JPEG about
as many bytes as a real photo does. The start of the workers counts.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import open_clip
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from ltgc.clip import crops, pixels
from ltgc.clip.encoder import Clip
from ltgc.data import images

SIZES = {(500, 375): 768, (2000, 1500): 128}  # ImageNet's mean size, and a camera's -> files
BATCH, SIDE, ROUNDS = 16, 224, 3
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
console = Console(width=115)


def draw_photos(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """`count` JPEGs of quality 90 in class folders, as ImageFolder wants them."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        photo = np.zeros((height, width, 3))
        for cell, strength in ((128, 60), (32, 35), (8, 20), (2, 10)):
            noise = rng.normal(128, strength, (height // cell + 2, width // cell + 2, 3)).clip(0, 255)
            photo += np.asarray(Image.fromarray(noise.astype(np.uint8)).resize((width, height))) - 128.0
        path = folder / f"class{number % 8}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((photo + 128).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def ours(paths: list[Path], workers: int) -> Iterator[torch.Tensor]:
    preprocess = open_clip.image_transform(SIDE, is_train=False, mean=MEAN, std=STD)
    cfg = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    model: Any = SimpleNamespace(visual=SimpleNamespace(preprocess_cfg=cfg))
    cpu = torch.device("cpu")
    files = pixels.FilePixels(paths, Clip(model, preprocess, lambda texts: torch.empty(0), cpu))
    order = torch.randperm(len(paths)).split(BATCH)
    return pixels.batches(files, [(part, torch.rand(len(part), 4)) for part in order], cpu, workers)


def torchvisions(folder: Path, workers: int, last: list[Any]) -> Iterator[torch.Tensor]:
    scale = (crops.SMALLEST_CROP**2, 1.0)
    bicubic = v2.InterpolationMode.BICUBIC
    crop = v2.RandomResizedCrop(SIDE, scale, (1.0, 1.0), interpolation=bicubic)
    transform = v2.Compose([crop, v2.RandomHorizontalFlip(), *last])
    loader = DataLoader(datasets.ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers)
    return (batch for batch, _ in loader)


def decoded(paths: list[Path]) -> Iterator[list[Image.Image]]:
    """Nothing but Pillow's decoder, in one process."""
    for path in paths:
        yield [images.load(path)]


def rate(read: Callable[[], Iterator[Any]]) -> float:
    """Images a second."""
    start = time.perf_counter()
    count = sum(len(batch) for batch in read())
    return count / (time.perf_counter() - start)


def main() -> None:
    torch.set_num_threads(1)
    bytes_ = [v2.PILToTensor()]
    floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    for (width, height), count in SIZES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            paths = draw_photos(folder, width, height, count)
            size = sum(path.stat().st_size for path in paths) / count / 1000
            table = Table(title=f"{width} x {height} JPEG of {size:.0f} kB, images/s: best of {ROUNDS} rounds")
            for column in ("workers", "LTGC", "torchvision", "ratio", "torchvision, normalised", "decoding alone"):
                table.add_column(column, justify="right")
            for workers in (1, 2):
                reads: list[Callable[[], Iterator[Any]]] = [
                    partial(ours, paths, workers),
                    partial(torchvisions, folder, workers, bytes_),
                    partial(torchvisions, folder, workers, floats),
                    partial(decoded, paths),
                ]
                best = [0.0] * len(reads)
                for _ in range(ROUNDS):  # in turns: another load on the machine meets all alike
                    best = [max(fastest, rate(read)) for fastest, read in zip(best, reads, strict=True)]
                mine, theirs, normalised, alone = best
                table.add_row(
                    str(workers),
                    f"{mine:.0f}",
                    f"{theirs:.0f}",
                    f"{math.floor(100 * mine / theirs) / 100:.2f}",
                    f"{normalised:.0f}",
                    f"{alone:.0f} a core",
                )
            console.print(table)


if __name__ == "__main__":
    main()
