"""Other names of classes, from a file that a data set may bring."""

import csv
import re
from pathlib import Path

from ltgc.pipeline.artifacts.dataset import Synonym
from ltgc.pipeline.errors import LTGCError

SYNONYMS = "synonyms.csv"  # below data.root, if there is one: class_name,synonym


def read_synonyms(root: Path) -> list[Synonym]:
    """The lines of `root`/synonyms.csv; none without the file.

    Raises LTGCError for a file without the columns class_name and synonym.
    """
    path = root / SYNONYMS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"class_name", "synonym"} <= set(rows.fieldnames or ()):
            raise LTGCError(f"{path}: its first line must be class_name,synonym")
        synonyms = [Synonym(class_name=row["class_name"] or "", synonym=row["synonym"] or "") for row in rows]
    for number, synonym in enumerate(synonyms, 2):
        if not synonym.class_name or not re.search(r"\w", synonym.synonym):
            raise LTGCError(f"{path}, line {number}: class_name and synonym must both be there")
    return synonyms
