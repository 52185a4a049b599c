"""What tells a class's name from the same word for something else: crane (the bird)."""

import csv
import difflib
import io
from dataclasses import replace

from ltgc.data.sources.listing import Listing, clean_name, read_text
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.data import DataSettings

COLUMNS = ["class", "hint"]


def hinted(data: DataSettings, listing: Listing) -> Listing:
    """`listing` with the hints of data.class_hints behind the names, which the LLM, T2I and CLIP all read.

    Raises LTGCError for a file that is no such table, and for a hint to a class that does not exist.
    """
    if data.class_hints is None:
        return listing
    path = data.root / data.class_hints
    rows = csv.DictReader(io.StringIO(read_text(path, "data.class_hints")))
    if rows.fieldnames != COLUMNS:
        raise LTGCError(f"data.class_hints: {path}: its first line is not `class,hint`")
    hints = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        name, hint = (clean_name(row[column] or "", where) for column in COLUMNS)
        if name not in listing.names:
            near = difflib.get_close_matches(name, listing.names, 1)
            raise LTGCError(f"{where}: no class {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        hints[name] = hint.replace("(", "").replace(")", "")
    return replace(listing, names=[f"{name} ({hints[name]})" if name in hints else name for name in listing.names])
