"""Sources cifar10 and cifar100: torchvision's on-disk format, encoded as PNG like any other data set."""

import io
from collections import Counter
from typing import Any

from PIL import Image

from ltgc.data.sources.listing import Listing, Sample, clean_name
from ltgc.pipeline.artifacts.dataset import Split, class_slug
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings


def read(data: DataSettings) -> Listing:
    """Read data.root/cifar-100-python or cifar-10-batches-py; its test batch is the test split.

    The batches are Python pickles, which can run code as they are read. torchvision reads them only after
    comparing the MD5 of each with that of the official file, and nobody can make another file of a given MD5:
    what is unpickled is what the authors published, or nothing.
    """
    from torchvision import datasets  # takes seconds, and no other source needs it

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[data.source]
    try:
        batches: dict[Split, Any] = {
            "train": dataset(data.root, train=True),
            "test": dataset(data.root, train=False),
        }
    except RuntimeError as error:
        raise LTGCError(
            f"data.root: {data.root / dataset.base_folder} is not there or not the official files (MD5); "
            f"unpack {dataset.filename} of {dataset.url} in {data.root}"
        ) from error
    classes = batches["train"].classes
    names = [clean_name(name, f"{dataset.base_folder}, class {name!r}") for name in classes]
    samples: list[Sample] = []
    pixels: dict[str, Any] = {}  # path -> (32, 32, 3) uint8
    for split, batch in batches.items():
        counted: Counter[int] = Counter()
        for label, image in zip(batch.targets, batch.data, strict=True):
            path = f"{split}/{class_slug(label, names[label])}/{counted[label]:04d}.png"
            counted[label] += 1
            pixels[path] = image
            samples.append(Sample(path, label, split))
    return Listing(names, samples, encode=lambda path: _png(pixels[path]))


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
