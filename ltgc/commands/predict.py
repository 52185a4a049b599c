"""Classifies a folder of images with a model that `ltgc export` wrote; nothing else is needed.

ltgc predict exported/balancemix photos predictions.csv
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip.encoder import Clip
from ltgc.clip.weights import load_clip
from ltgc.data import images
from ltgc.data.sources.folder import IMAGE_SUFFIXES
from ltgc.pipeline import files
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.files import Record
from ltgc.pipeline.settings.clip import ClipSettings
from ltgc.pipeline.terminal import console

CLASS_NAMES = "classes.json"  # {"method": ..., "seed": ..., "classes": [names by label]}
BATCH = 64  # images; no slower than 256 with the embedded CLIP and ViT-B/32, and the progress bar moves


class Row(Record):
    """One line of the CSV: a class with its probability, or why the image cannot be used."""

    image: str  # path below the folder
    class_name: str | None
    probability: float | None  # rounded to 6 decimals
    error: str | None


def main(model: Path, folder: Path, out: Path) -> None:
    rows = predict(model, folder)
    files.write_records_csv(out, rows, Row)
    bad = [row for row in rows if row.error]
    unread = f", {len(bad):,} of them could not be read, the first {bad[0].image}: {bad[0].error}" if bad else ""
    console.print(f"{out}: {len(rows):,} images{unread}", markup=False, soft_wrap=True)


def predict(model: Path, folder: Path, device: str = "auto") -> list[Row]:
    """A row for every image below `folder`, in the order of their paths.

    Raises LTGCError if `model` is no exported folder, or `folder` holds no image.
    """
    if not (model / CLASS_NAMES).is_file():
        raise LTGCError(f"{model}: has no {CLASS_NAMES}; make it with `ltgc export METHOD SEED FOLDER`")
    if not folder.is_dir():
        raise LTGCError(f"{folder}: not a folder of images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise LTGCError(f"{folder}: no image in it")
    names = files.read_json(model / CLASS_NAMES)["classes"]
    network = load_clip(ClipSettings(model=f"local-dir:{model}", pretrained=None, revision=None), device)
    head = load_classifier(model, network)
    rows: list[Row] = []
    for start in track(range(0, len(paths), BATCH), "predict", console=console, transient=True):
        batch = paths[start : start + BATCH]
        with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
            read = list(pool.map(lambda path: pixels(path, network), batch))
        answers = iter(best(head, [image for image in read if isinstance(image, Tensor)]))
        for path, image in zip(batch, read, strict=True):
            name = path.relative_to(folder).as_posix()
            if isinstance(image, str):
                rows.append(Row(image=name, class_name=None, probability=None, error=image))
            else:
                label, probability = next(answers)
                rows.append(Row(image=name, class_name=names[label], probability=probability, error=None))
    return rows


def pixels(path: Path, network: Clip) -> Tensor | str:
    """(3, H, W) uint8 at CLIP's size, or why the image cannot be used."""
    try:
        return network.pixels(images.load(path))
    except (images.BadImage, OSError) as error:
        return str(error) if isinstance(error, images.BadImage) else (error.strerror or "cannot be read")


@torch.inference_mode()
def best(head: Classifier, batch: list[Tensor]) -> list[tuple[int, float]]:
    """The likeliest label of each image and its probability, rounded to 6 decimals."""
    if not batch:
        return []
    values, labels = head(torch.stack(batch).to(head.head.device)).softmax(-1).max(-1)
    return [(label, round(value, 6)) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]
