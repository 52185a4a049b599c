"""Source wildflowers: the embedded data set, whose photos are drawn."""

from importlib import import_module

from ltgc.data.sources.listing import Listing, Sample
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

SPECIES = "species.yaml"  # in data.root: what is drawn


def check_root(data: DataSettings) -> None:
    """Raises LTGCError where data.root is not of this source, as when only root was set to one's own photos."""
    if not (data.root / SPECIES).is_file():
        raise LTGCError(
            f"data.root: {data.root} has no {SPECIES}, which data.source: wildflowers draws; for photos "
            "of your own set data.source too, to folder for one folder a class"
        )


def read(data: DataSettings) -> Listing:
    """Draw the photos of the species in data.root."""
    check_root(data)
    try:
        wildflowers = import_module("embedded.wildflowers")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("embedded"):
            raise
        raise LTGCError(
            "data.source: wildflowers needs the folder embedded/, which is not here; "
            "set data.source: folder and data.root to your images in params.yaml"
        ) from error
    photos = list(wildflowers.photos(data.root, data.seed))
    names = sorted({photo.species for photo in photos})
    labels = {name: label for label, name in enumerate(names)}
    samples = [Sample(photo.path, labels[photo.species], photo.split) for photo in photos]
    encoded = {photo.path: photo.png for photo in photos}
    return Listing(names, samples, encode=encoded.__getitem__)
