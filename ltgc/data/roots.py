"""Where the images of the data set are."""

from pathlib import Path

from ltgc.data.images import ImageFile
from ltgc.pipeline.artifacts.dataset import MADE_IMAGES, ImageRecord
from ltgc.pipeline.settings.data import DataSettings

MADE = frozenset({"wildflowers", "cifar10", "cifar100"})  # sources whose images prepare makes, in MADE_IMAGES


def image_root(data: DataSettings) -> Path:
    """What ImageRecord.path is relative to: a folder or a shard. Needs no keys but source, root and images."""
    return MADE_IMAGES if data.source in MADE else data.images or data.root


def image_file(root: Path, image: ImageRecord) -> ImageFile:
    """Where an image of the manifest is, with the hash that its bytes must have."""
    return ImageFile(f"{root}/{image.path}", image.hash)
