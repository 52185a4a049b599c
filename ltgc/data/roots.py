"""Where the images of the data set lie."""

from pathlib import Path

from ltgc.pipeline.artifacts.dataset import DRAWN_IMAGES
from ltgc.pipeline.settings.data import DataSettings

DRAWN = frozenset({"wildflowers", "cifar10", "cifar100"})  # their images are made by prepare, not found


def image_root(data: DataSettings) -> Path:
    """The folder that ImageRecord.path is relative to. Needs data.source, data.root and data.images only."""
    return DRAWN_IMAGES if data.source in DRAWN else data.images or data.root
