"""Reading what real models write: what is common to every reply.

Replies come as lists, bold, braces, prose, JSON; with preambles, closing remarks and refusals. Everything in this
package is linear in the length of the reply, which is cut at MAX_REPLY characters.
"""

import re
import unicodedata

from ltgc.clients.chat import Reply
from ltgc.pipeline.artifacts.reasons import ReplyReason, RequestReason

MAX_REPLY = 200_000  # characters read of one reply; max_tokens of params.yaml is far below, if the server obeys


class Unusable(ValueError):
    """A reply, or an entry of one, that is not what was asked for."""

    def __init__(self, reason: ReplyReason | RequestReason) -> None:
        super().__init__(reason)
        self.reason = reason


# How a model is told why its reply cannot be used.
REASONS: dict[str, str] = {
    "empty": "it was empty",
    "refused": "it was a refusal",
    "truncated": "it was cut off in the middle; be briefer",
    "wrong_class": "it was about another class",
    "too_long": "it was too long; one sentence is asked for",
    "not_in_template": "it did not follow the template",
    "unanswered": "it did not answer each question with yes or no",
    "has_scene": "it spoke of scenes, and only features are asked for",
}


def usable_text(reply: Reply) -> str:
    """The text of a reply. Raises Unusable where there is nothing in it to read."""
    if reply.unusable:
        raise Unusable(reply.unusable)
    return reply.text


def one_line(text: str) -> str:
    return " ".join(text.split())


def normalised(text: str) -> str:
    """What two descriptions are compared by: their words, without case, accents of form, or punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


MARK = r"[\s*_`\"'“”‘’«»{}\[\]<>#]"  # what stands around words as markup
LABEL = r"(?:description|entry|image|template|photo|answer)\s*\d*\s*:"
PREFIX = re.compile(rf"^(?:{MARK}|[-–—•·‣◦>|]|\(?\d{{1,4}}[.):\]]|{LABEL})+", re.I)
REFUSAL = re.compile(
    r"^\W*(?:i['’]?\s?a?m (?:really |very |so )?(?:sorry|unable|not able)|sorry\b"
    r"|i (?:can(?:no|['’])?t|cannot|won['’]t)|i apologi[sz]e|as an ai\b|unfortunately\b|(?:my )?apologies\b)",
    re.I,
)
THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.I | re.S)


def plain(reply: str) -> str:
    """`reply` on one line, without what reasoning models think aloud and without control characters."""
    text = THINKING.sub("", reply[:MAX_REPLY])
    return one_line("".join(c if c.isprintable() else " " for c in text))


def refused(reply: str) -> bool:
    return bool(REFUSAL.match(plain(reply)))
