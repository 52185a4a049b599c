"""Source inaturalist: the competition's JSON, or the text lists, with the taxonomy in categories.json."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltgc.data.sources import lists
from ltgc.data.sources.listing import Listing, Sample, clean_name, clean_path, locate, read_text, refuse_same_names
from ltgc.pipeline.artifacts.dataset import Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

RANKS = ("kingdom", "phylum", "class", "order", "family")  # the genus is the first word of a species' name


def read(data: DataSettings) -> Listing:
    """Read data.files (.json, else lists of `path label`) and data.class_names. Labels are the category ids.

    The class name is the species; the wider taxonomy is its context. Without data.class_names the categories
    of the training JSON are used.
    """
    samples: list[Sample] = []
    own_categories: Any = None
    for split, file in lists.files(data):
        path = data.root / file
        if path.suffix != ".json":
            samples += lists.read_list(path, split)
            continue
        found, categories = _read_annotations(path, split)
        samples += found
        own_categories = own_categories or categories
    if data.class_names is not None:
        where = data.root / data.class_names
        own_categories = _parse(where, "data.class_names")
    else:
        where = data.root / str(data.files.train)
    names, contexts = _taxonomy(own_categories, where)
    lists.check_labels(samples, len(names), data.root)
    refuse_same_names({f"category {label}": name for label, name in enumerate(names)}, data.root)
    root = data.images or data.root
    return Listing(names, locate(samples, root, data.root / str(data.files.train)), contexts)


def _read_annotations(path: Path, split: Split | None) -> tuple[list[Sample], Any]:
    """The images of one JSON file, and its categories."""
    content = _parse(path, "data.files")
    try:
        files: dict[int, tuple[str, Any]] = _unique(content["images"], path, "images with the id")
        labels: dict[int, int] = _unique(content["annotations"], path, "annotations of image")
    except (KeyError, TypeError, ValueError) as error:
        raise LTGCError(f"{path}: not the competition's JSON: it has no images and annotations") from error
    if without := files.keys() ^ labels.keys():
        raise LTGCError(f"{path}: image {min(without)} has an image or an annotation only, not both")
    where, licenses = str(path), _licenses(content)
    samples = [
        Sample(clean_path(file, where), labels[i], split, licenses.get(license))
        for i, (file, license) in files.items()
    ]
    return samples, content.get("categories")


def _licenses(content: dict[str, Any]) -> dict[Any, str]:
    """The names of the licences by their ids; what is not as the competition writes it counts as not stated."""
    listed = content.get("licenses")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {
        e["id"]: " ".join(str(e["name"]).split())
        for e in entries
        if isinstance(e.get("id"), int) and e.get("name")
    }


def _unique(pairs: Iterable[tuple[int, Any]], path: Path, what: str) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for id, value in pairs:
        if id in found:
            raise LTGCError(f"{path}: two {what} {id}; remove one")
        found[id] = value
    return found


def _small(entry: dict[str, Any]) -> Any:
    """Images and annotations as pairs as soon as they are parsed: half a million dicts of nine keys take 1 GB."""
    if "file_name" in entry:
        license = entry.get("license")
        return entry["id"], (entry["file_name"], license if isinstance(license, int) else None)
    if "category_id" in entry:
        return entry["image_id"], entry["category_id"]
    return entry


def _parse(path: Path, key: str) -> Any:
    try:
        return json.loads(read_text(path, key), object_hook=_small)
    except (ValueError, KeyError) as error:
        raise LTGCError(f"{key}: {path}: not the competition's JSON ({error})") from error


def _taxonomy(categories: Any, path: Path) -> tuple[list[str], list[str | None]]:
    """Species and context ("Plantae > ... > Asteraceae") by category id."""
    try:
        by_id = _unique(((category["id"], category) for category in categories), path, "categories with the id")
        names = [str(by_id[label]["name"]) for label in range(len(by_id))]
    except (KeyError, TypeError) as error:
        raise LTGCError(
            f"{path}: no list of categories with the ids 0, 1, ... and names; "
            "set data.class_names to categories.json, below data.root"
        ) from error
    if names and all(name.isdigit() for name in names):
        raise LTGCError(
            f"{path}: its names are numbers; set data.class_names to the categories.json with real names"
        )
    contexts = [" > ".join(str(by_id[i][rank]) for rank in RANKS if by_id[i].get(rank)) for i in range(len(by_id))]
    return [clean_name(name, f"{path}, category {i}") for i, name in enumerate(names)], [
        c or None for c in contexts
    ]
