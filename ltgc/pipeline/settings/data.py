"""The section `data` of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltgc.pipeline.settings.base import Fraction, Positive, Section


class LongTailSettings(Section):
    head: Positive | None
    ratio: float = Field(ge=1)


class FilesSettings(Section):
    """Of the sources list and inaturalist, below data.root."""

    train: str | None
    val: str | None
    test: str | None


class TableSettings(Section):
    """Of the source csv: its file below data.root and the names of its columns."""

    file: str
    image: str
    class_name: str
    split: str | None


class DataSettings(Section):
    source: Literal["wildflowers", "folder", "list", "inaturalist", "csv", "cifar10", "cifar100"]
    root: Path
    images: Path | None
    files: FilesSettings
    class_names: str | None
    class_hints: str | None
    table: TableSettings
    seed: int
    val_fraction: Fraction
    test_fraction: Fraction
    on_bad_image: Literal["error", "skip"]
    verify: bool
    max_pixels: int = Field(gt=0, le=100_000_000)  # ltgc.data.images.MAX_PIXELS: no stage reads a larger one
    near_duplicates: Annotated[int, Field(ge=0, le=8)] | None  # random hashes of iNaturalist meet from 8 on
    long_tail: LongTailSettings

    @model_validator(mode="after")
    def _training_images_left(self) -> "DataSettings":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1: nothing would be left to train on")
        return self


class LicensesSettings(Section):
    """What the cards of exported folders say, as the Hugging Face hub names licences; None: not stated."""

    photos: str | None = None
    drawings: str | None = None
    models: str | None = None
