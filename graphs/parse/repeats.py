"""Which entries of a list come back when a model is asked to leave out repeats."""

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate

from graphs.parse.entries import cut_entries
from graphs.parse.reply import PREFIX, normalised

# An entry of the reply is an entry of the list if this fraction of their words agrees. Models mend commas and
# articles and number what remains from 1 again, so the words decide and not the numbers.
SAME = 0.9
# The list of one repetition check comes back in one reply. A token is about 4 characters of English; a quarter
# is left for numbers and for words around the list.
CHARACTERS_A_TOKEN = 3


def match_entries(reply: str, descriptions: Sequence[str], known: Sequence[str] = ()) -> tuple[set[int], int]:
    """Which of `descriptions` a repetition check's reply returns, and how many entries it invented.

    known: what the model was shown beside the list; a reply that returns it as well says nothing by that.
    """
    shown = {normalised(text) for text in known}
    listed = [normalised(d) for d in descriptions]
    position = {words: i for i, words in reversed(list(enumerate(listed)))}
    remaining: set[int] = set()
    others: list[str] = []
    for piece in cut_entries(reply):
        words = normalised(PREFIX.sub("", piece))
        if words in position:
            remaining.add(position[words])
        elif "photo of" in words and words not in shown:
            others.append(words)
    invented = 0
    for words in others[: 2 * len(listed)]:
        nearest = max(
            ((_likeness(words, listed[i]), -i) for i in range(len(listed)) if i not in remaining), default=(0.0, 0)
        )
        if nearest[0] >= SAME:
            remaining.add(-nearest[1])
        else:
            invented += 1
    return remaining, invented


def _likeness(a: str, b: str) -> float:
    matcher = SequenceMatcher(None, a.split(), b.split(), autojunk=False)
    return matcher.ratio() if matcher.real_quick_ratio() >= SAME and matcher.quick_ratio() >= SAME else 0.0


def chunks(kept: Sequence[int], descriptions: Sequence[str], characters: int) -> list[list[int]]:
    """`kept`, which are positions in `descriptions`, in order, in even chunks whose descriptions fit one reply."""
    sizes = [len(descriptions[i]) + 5 for i in kept]
    total = sum(sizes)
    count = math.ceil(total / characters)
    found: list[list[int]] = [[] for _ in range(count)]
    for i, before in zip(kept, accumulate(sizes, initial=0), strict=False):
        found[before * count // total].append(i)
    return [chunk for chunk in found if chunk]
