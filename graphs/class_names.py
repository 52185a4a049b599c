"""Finding the class that a model's reply names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from graphs.parse.reply import MAX_REPLY, THINKING, Unusable, normalised, refused
from graphs.parse.template_1 import split_hint
from ltgc.pipeline.artifacts.dataset import SYNONYMS, ClassRecord, Synonym
from ltgc.pipeline.errors import LTGCError

Words = tuple[str, ...]


class Names:
    """Finds classes by name and synonym in what a model says, whatever its case, plurals and punctuation."""

    def __init__(self, classes: Sequence[ClassRecord], synonyms: Iterable[Synonym] = ()) -> None:
        """Raises LTGCError for a synonym that two classes share, or of no class."""
        labels = {c.name: c.label for c in classes}
        self._labels: dict[Words, int] = {words(name): label for name, label in labels.items()}
        self._stems: dict[Words, int] = {}  # only after the exact names: "glass" and "glasses" may be two classes
        own_names = [Synonym(class_name=name, synonym=name) for name in labels]
        bases = Counter(split_hint(name)[0] for name in labels)
        without_hints = [
            Synonym(class_name=name, synonym=base)
            for name in labels
            if bases[base := split_hint(name)[0]] == 1 and base != name
        ]
        for class_name, name in ((s.class_name, s.synonym) for s in [*synonyms, *without_hints, *own_names]):
            if class_name not in labels:
                raise LTGCError(f"{SYNONYMS.name}: {class_name!r} is no class; correct it in data.root")
            if self._labels.setdefault(words(name), labels[class_name]) != labels[class_name]:
                what = f"{name!r} is given to {class_name!r} and names another class too"
                raise LTGCError(f"{SYNONYMS.name}: {what}; correct it in data.root")
            self._stems.setdefault(_stem(words(name)), labels[class_name])
        self._longest = max(map(len, self._labels), default=0)

    def find(self, reply: str) -> int:
        """The label of the one class that the reply names.

        Raises Unusable: "refused", "unknown_class" for a reply that names none, "several_classes".
        """
        text = THINKING.sub("", reply[:MAX_REPLY])
        said = words(text)
        if (label := self._labels.get(said)) is not None:
            return label  # a class may well be called "sorry"
        if refused(text):
            raise Unusable("refused")
        found = set()
        at = 0
        while at < len(said):
            # The longest name that begins here: "rose hip" is not a rose.
            for size in range(min(self._longest, len(said) - at), 0, -1):
                if (label := self._label(said[at : at + size])) is not None:
                    found.add(label)
                    at += size
                    break
            else:
                at += 1
        if len(found) != 1:
            raise Unusable("several_classes" if found else "unknown_class")
        return found.pop()

    def _label(self, words: Words) -> int | None:
        exact = self._labels.get(words)
        return self._stems.get(_stem(words)) if exact is None else exact


def words(text: str) -> Words:
    return tuple(normalised(text).split())


def _stem(words: Words) -> Words:
    """The same for the singular and the plural of an English noun: poppy and poppies, box and boxes."""
    last = re.sub(r"(?<!s|u|i)s$", "", words[-1])
    return (*words[:-1], re.sub(r"y$", "i", last.removesuffix("e")))
