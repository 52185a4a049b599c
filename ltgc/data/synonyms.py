"""Other names of classes, from a file that a data set may bring."""

import csv
import re
from pathlib import Path

from ltgc.pipeline.errors import LTGCError

SYNONYMS = "synonyms.csv"  # below data.root, if there is one: class_name,synonym


def read_synonyms(root: Path) -> list[tuple[str, str]]:
    """(class name, another name of it) of `root`/synonyms.csv; none without the file.

    Raises LTGCError for a file without the columns class_name and synonym.
    """
    path = root / SYNONYMS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"class_name", "synonym"} <= set(rows.fieldnames or ()):
            raise LTGCError(f"{path}: its first line must be class_name,synonym")
        pairs = [(row["class_name"], row["synonym"]) for row in rows]
    for number, (class_name, synonym) in enumerate(pairs, 2):
        if not class_name or not synonym or not re.search(r"\w", synonym):
            raise LTGCError(f"{path}, line {number}: class_name and synonym must both be there")
    return pairs
