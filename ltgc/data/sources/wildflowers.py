"""Source wildflowers: the embedded data set, whose photos are drawn."""

from importlib import import_module

from ltgc.data.sources.listing import Listing, Sample
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings


def read(data: DataSettings) -> Listing:
    """Draw the photos of the species in data.root."""
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
