"""Source wildflowers: the embedded data set, drawn."""

from importlib import import_module
from pathlib import Path

from ltgc.data.sources.found import Found, Sample
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings


def find(data: DataSettings, drawn: Path) -> Found:
    """Draw the world that data.root describes below `drawn`."""
    try:
        wildflowers = import_module("embedded.wildflowers")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("embedded"):
            raise
        raise LTGCError(
            "data.source: wildflowers needs the folder embedded/, which is not here; "
            "set data.source: folder and data.root to your images in params.yaml"
        ) from error
    rows = wildflowers.prepare(data.root, drawn, data.seed)
    names = sorted({name for _, name, _ in rows})
    label = {name: i for i, name in enumerate(names)}
    return Found(names, [Sample(path, label[name], split) for path, name, split in rows])
