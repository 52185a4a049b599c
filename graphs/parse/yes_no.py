"""Yes/no questions about features: which ones to ask, and what a reply answers."""

import re

from graphs.parse.reply import REFUSAL, THINKING, Unusable, normalised, one_line

MAX_FEATURES = 12  # of one description

JOINT = re.compile(r"(\s*[,;]\s*(?:and\s+|with\s+)?|\s+and\s+(?:with\s+)?)", re.I)
OPENING = re.compile(r"^(?:and\s+|with\s+|featuring\s+|showing\s+|has\s+|having\s+)+", re.I)
ANSWER = re.compile(r"\b(?:(yes|true)|no|false)\b", re.I)
NUMBERED = re.compile(r"^\W*(\d{1,3})\b(.*)$", re.M)


def split_features(features: str) -> list[str]:
    """The features of a description one by one: at most MAX_FEATURES, in order.

    "with large, pointed ears, black and white fur and a tail" is three: an adjective stays with its noun.
    """
    pieces = JOINT.split(one_line(features).strip(" .,;"))
    found: list[str] = []
    held = ""  # single words, with what joins them to the next piece
    for piece, joint in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        piece = held + (piece if held else OPENING.sub("", piece))
        held = ""
        if joint and len(piece.split()) == 1:
            held = piece + joint
        elif piece:
            found.append(piece)
    distinct: dict[str, str] = {}
    for feature in found:
        distinct.setdefault(normalised(feature), feature)
    return list(distinct.values())[:MAX_FEATURES]


def parse_answers(reply: str, count: int) -> list[bool]:
    """The answers to questions 1 to `count`: by their numbers, or else as many yes and no as there are questions.

    Raises Unusable: "empty", "refused", "unanswered".
    """
    text = THINKING.sub("", reply)
    if not text.strip():
        raise Unusable("empty")
    by_number: dict[int, bool] = {}
    for number, line in NUMBERED.findall(text):
        # A model that repeats the question may repeat a "no" in it.
        if answer := ANSWER.search(line.rpartition("?")[2]) or ANSWER.search(line):
            by_number.setdefault(int(number), bool(answer[1]))
    if all(number in by_number for number in range(1, count + 1)):
        return [by_number[number] for number in range(1, count + 1)]
    if REFUSAL.match(text):
        raise Unusable("refused")
    answers = [bool(answer[1]) for answer in ANSWER.finditer(text)]
    if len(answers) != count:
        raise Unusable("unanswered")
    return answers
