"""Which entries of a list come back when a model is asked to leave out repeats."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from graphs.parse.entries import cut_entries
from graphs.parse.reply import PREFIX, normalised

# A reply's entry is one of the list's if so much of their words agree. Models mend commas and articles, and they
# renumber what remains from 1, so the words decide and the numbers do not.
SAME = 0.9
# The list of one repetition check comes back in one reply. A token is about 4 characters of English; a quarter
# is left for numbers and for words around the list.
CHARACTERS_A_TOKEN = 3


def match_entries(reply: str, descriptions: Sequence[str]) -> tuple[set[int], int]:
    """Which of `descriptions` a repetition check's reply returns, and how many entries it invented."""
    listed = [normalised(d) for d in descriptions]
    position = {words: i for i, words in reversed(list(enumerate(listed)))}
    remaining: set[int] = set()
    others: list[str] = []
    for piece in cut_entries(reply):
        words = normalised(PREFIX.sub("", piece))
        if words in position:
            remaining.add(position[words])
        elif "photo of" in words:
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


def chunks(places: Sequence[int], descriptions: Sequence[str], characters: int) -> Iterator[list[int]]:
    """`places` in parts whose descriptions fit one reply.

    A list that fits stays in its order. A longer one (K = 800 on Places-LT) is ordered first so that
    descriptions with the same words come to lie side by side: repeats meet only within a part.
    """
    sizes = {i: len(descriptions[i]) + 5 for i in places}
    order = list(places) if sum(sizes.values()) <= characters else _by_likeness(places, descriptions)
    chunk: list[int] = []
    room = characters
    for i in order:
        if len(chunk) > 1 and sizes[i] > room:
            yield sorted(chunk)
            chunk, room = [], characters
        chunk.append(i)
        room -= sizes[i]
    if len(chunk) > 1:
        yield sorted(chunk)


def _by_likeness(places: Sequence[int], descriptions: Sequence[str]) -> list[int]:
    """A walk through the list that always goes to the unvisited description with the most words in common."""
    words = {i: set(normalised(descriptions[i]).split()) for i in places}
    order = [places[0]]
    left = dict.fromkeys(places[1:])
    while left:
        here = words[order[-1]]
        order.append(max(left, key=lambda i: (len(here & words[i]) / len(here | words[i]), -i)))
        del left[order[-1]]
    return order
