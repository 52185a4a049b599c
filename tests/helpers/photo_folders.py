"""Folders of small photos, the section of params.yaml that reads them, and the manifest that lists them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from ltgc.data import images
from ltgc.data.dataset import Dataset
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord, Split, class_slug
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


def image_record(root: Path, path: str, label: int, class_name: str, split: Split = "train") -> ImageRecord:
    """What prepare lists of the image that is at `path` below `root`; some hash if none is there."""
    hash = images.content_hash((root / path).read_bytes() if (root / path).exists() else b"")
    return ImageRecord(path=path, label=label, class_name=class_name, split=split, hash=hash)


def few_photos(folder: Path, counts: Mapping[str, int], photo: Callable[[int, int], bytes]) -> None:
    """Write what prepare would of few-shot classes: PNG photos, photo(label, number), and the lists of them."""
    classes, listed = [], []
    for label, (name, count) in enumerate(counts.items()):
        slug = class_slug(label, name)
        classes.append(ClassRecord(label=label, name=name, slug=slug, train=count, val=0, test=1, shot="few"))
        for number in range(count):
            path = folder / f"photos/{slug}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(label, number))
            listed.append(image_record(folder / "photos", f"{slug}/{number}.png", label, name))
    files.write_records_csv(folder / CLASSES, classes, ClassRecord)
    files.write_records_csv(folder / MANIFEST, listed, ImageRecord)


def list_again(manifest: Path, root: Path) -> None:
    """Bring the hashes of a manifest up to date, as prepare does when photos have changed."""
    listed = files.read_csv(manifest, ImageRecord)
    records = [image_record(root, i.path, i.label, i.class_name, i.split) for i in listed]
    files.write_records_csv(manifest, records, ImageRecord)


def counts(dataset: Dataset) -> dict[str, tuple[int, int, int]]:
    return {c.name: (c.train, c.val, c.test) for c in dataset.classes}
