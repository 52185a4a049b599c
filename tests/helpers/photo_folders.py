"""Folders of small photos, and the section of params.yaml that reads them."""

from pathlib import Path

from PIL import Image

from ltgc.data import images
from ltgc.data.dataset import Dataset
from ltgc.pipeline.settings.data import DataSettings


def put(folder: Path, count: int, suffix: str = ".jpg", start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("RGB", (8, 8), (number % 256, 40, 90)).save(folder / f"{number:03d}{suffix}")


def section(root: Path, **changes: object) -> DataSettings:
    values: dict[str, object] = {
        "source": "folder",
        "root": root,
        "images": None,
        "files": {"train": None, "val": None, "test": None},
        "class_names": None,
        "class_hints": None,
        "table": {"file": "images.csv", "image": "image", "class_name": "class", "split": "split"},
        "verify": True,
        "max_pixels": images.MAX_PIXELS,
        "near_duplicates": None,
        "seed": 0,
        "val_fraction": 0.1,
        "test_fraction": 0.2,
        "on_bad_image": "error",
        "long_tail": {"head": None, "ratio": 100},
    }
    return DataSettings.model_validate(values | changes)


def counts(dataset: Dataset) -> dict[str, tuple[int, int, int]]:
    return {c.name: (c.train, c.val, c.test) for c in dataset.classes}
