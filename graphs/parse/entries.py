"""A list of descriptions, cut into its entries."""

import json
import re

from graphs.parse.reply import MARK, MAX_REPLY, PREFIX, THINKING

MAX_ENTRIES = 1_000  # read of one reply
NEXT_NUMBER = re.compile(
    r"(?<=[.!}*\"])\s+(?:\(?\d{1,3}[.):]|[-*•])$"
)  # of the entry after this one, in one paragraph
NEW_ENTRY = re.compile(rf"(?:(?<=^)|(?<=[\s\"'{{\[*]))(?=a{MARK}+photo{MARK}+of{MARK}+the{MARK}+class\b)", re.I)


def cut_entries(reply: str) -> list[str]:
    """The pieces of `reply` that may each be one description, raw, in order; at most MAX_ENTRIES.

    Numbered, bulleted, one a line, wrapped over lines, in JSON, or run together in one paragraph.
    """
    text = THINKING.sub("", reply[:MAX_REPLY])
    pieces: list[str] = []
    for block in _json_strings(text) or text.splitlines():
        for piece in NEW_ENTRY.split(block):
            bare = NEXT_NUMBER.sub("", piece.strip(" \t,`"))
            if not re.search(r"\w", PREFIX.sub("", bare)) or bare.lower() in ("json", "text", "markdown"):
                continue
            if pieces and _continues(bare) and NEW_ENTRY.search(" " + pieces[-1]):
                pieces[-1] = f"{pieces[-1]} {bare}"
            else:
                pieces.append(bare)
        if len(pieces) >= MAX_ENTRIES:
            break
    return pieces[:MAX_ENTRIES]


def _continues(line: str) -> bool:
    """Whether `line` goes on with the entry above it: it begins small, or with a brace of the template."""
    return bool(re.match(r"[{a-z]|\*+[a-z]", line)) and not NEW_ENTRY.search(" " + line)


def _json_strings(text: str) -> list[str]:
    """The strings in a reply that is a JSON list, in a code fence or not; [] if it is none."""
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start or '"' not in text[start:end]:
        return []
    try:
        found = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    values = [v for item in found for v in (item.values() if isinstance(item, dict) else [item])]
    return [v for v in values if isinstance(v, str)]
