"""Source csv: a table of image, class and, if it has one, split."""

import csv
import io
from pathlib import Path

from ltgc.data.sources import lists
from ltgc.data.sources.listing import (
    SPLITS,
    Listing,
    Sample,
    clean_name,
    clean_path,
    locate,
    read_text,
    refuse_same_names,
)
from ltgc.pipeline.artifacts.dataset import Split
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings


def read(data: DataSettings) -> Listing:
    """Read data.table. Its class column holds names, or labels where data.class_names names a file of them.

    Without a split column prepare splits the images. Raises LTGCError naming file, line and column.
    """
    table, path = data.table, data.root / data.table.file
    reader = csv.DictReader(io.StringIO(read_text(path, "data.table.file"), newline=""))
    columns = [column for column in (table.image, table.class_name, table.split) if column is not None]
    for column in columns:
        if column not in (reader.fieldnames or []):
            has = ", ".join(reader.fieldnames or []) or "none"
            raise LTGCError(f"{path}: no column {column!r} (it has {has}); set data.table in params.yaml")
    rows: list[tuple[str, str, Split | None]] = []
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if any(row[column] is None for column in columns):
            raise LTGCError(f"{where}: fewer columns than the header")
        image = clean_path(row[table.image].strip(), where)
        rows.append((image, row[table.class_name].strip(), _split(row, table.split, where)))
    if data.class_names is not None:
        samples = [Sample(image, _label(text, path), split) for image, text, split in rows]
        names = lists.read_names(data.root, data.class_names, samples)
        lists.check_labels(samples, len(names), data.root)
        refuse_same_names({f"label {label}": name for label, name in enumerate(names)}, data.root)
    else:
        where = f"{path}, column {table.class_name!r}"
        named = {text: clean_name(text, where) for text in sorted({text for _, text, _ in rows})}
        refuse_same_names(named, data.root)
        names = sorted(named.values())
        label = {name: i for i, name in enumerate(names)}
        samples = [Sample(image, label[named[text]], split) for image, text, split in rows]
    return Listing(names, locate(samples, data.images or data.root, path))


def _label(text: str, path: Path) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise LTGCError(
            f"{path}: {text!r} is no label; with data.class_names the class column holds labels"
        ) from error


def _split(row: dict[str, str], column: str | None, where: str) -> Split | None:
    if column is None:
        return None
    try:
        return SPLITS[row[column].strip().lower()]
    except KeyError as error:
        raise LTGCError(f"{where}: the split {row[column]!r} is none of {', '.join(SPLITS)}") from error
