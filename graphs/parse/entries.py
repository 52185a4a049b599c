"""A list of descriptions, cut into its entries and read."""

import json
import re

from graphs.parse.reply import MARK, MAX_REPLY, PREFIX, THINKING, Unusable, plain, refused
from graphs.parse.template_1 import Description, parse_description
from ltgc.clients.chat import Reply
from ltgc.pipeline.artifacts.reasons import ReplyReason, RequestReason

MAX_RAW = 500  # characters kept of an entry that is no description

MAX_ENTRIES = 1_000  # read of one reply
# The number or bullet of the next entry, in one paragraph with this one.
NEXT_NUMBER = re.compile(r"(?<=[.!}*\"])\s+(?:\(?\d{1,3}[.):]|[-*•])$")
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


def parse_entries(reply: str, class_name: str, truncated: bool) -> list[Description]:
    """The entries of a list as they came; one that is no description of the class has its raw text and the reason.

    truncated: the reply was cut off, so its last entry is not whole.
    """
    pieces = cut_entries(reply)
    found = []
    for i, piece in enumerate(pieces):
        try:
            if truncated and i == len(pieces) - 1:
                raise Unusable("truncated")
            found.append(parse_description(piece, class_name))
        except Unusable as unusable:
            found.append(Description(plain(piece)[:MAX_RAW], reason=unusable.reason))
    return found


def first_description(reply: str, class_name: str) -> Description:
    """The first description in a reply; models like to say what they changed. Raises Unusable."""
    for piece in cut_entries(reply):
        try:
            return parse_description(piece, class_name)
        except Unusable:
            continue
    return parse_description(reply, class_name)


def lists_nothing(reply: Reply) -> ReplyReason | RequestReason | None:
    """Why a reply lists nothing at all; None if it may. A truncated list is a list."""
    if reply.unusable and not reply.truncated:
        return reply.unusable
    return "refused" if refused(reply.text) else None


def _continues(line: str) -> bool:
    """Whether `line` goes on with the entry above it: it begins with a small letter or a brace of the template."""
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
