"""The language of the embedded world: features and scenes put into words, and words read back.

`put` writes the phrases that captions, field guide and endpoint use; `read` understands them in any order
and ignores the rest, as a text-to-image model does.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from numpy.random import Generator

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {
        "three": ("three", "3"),
        "four": ("four", "4"),
        "five": ("five", "5"),
        "six": ("six", "6"),
        "many": ("many", "numerous", "crowded"),
    },
    "shape": {
        "rounded": ("rounded", "round"),
        "pointed": ("pointed", "sharp-tipped"),
        "notched": ("notched", "heart-shaped"),
        "narrow": ("narrow", "slender"),
    },
    "colour": {
        "white": ("white", "pure white"),
        "yellow": ("yellow", "golden yellow"),
        "orange": ("orange", "bright orange"),
        "red": ("red", "scarlet"),
        "pink": ("pink", "rosy pink"),
        "purple": ("purple", "violet"),
        "blue": ("blue", "azure blue"),
    },
    "accent": {
        "yellow": ("yellow", "golden"),
        "black": ("black", "dark"),
        "green": ("green", "greenish"),
        "white": ("white", "pale"),
        "brown": ("brown", "chestnut"),
    },
    "leaves": {
        "broad": ("broad", "wide oval"),
        "grassy": ("grassy", "blade-like"),
        "feathery": ("feathery", "finely cut"),
        "toothed": ("toothed", "jagged"),
    },
}
# How a form is named (after its colour), and what its accent is on.
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "open": (("petals",), ("centre", "eye", "disc")),
    "bell": (("hanging bells", "nodding bells"), ("rim", "edge")),
    "cup": (("upright cup", "goblet-like bloom"), ("base",)),
    "spike": (("tall spike", "tapering spire"), ("tip",)),
    "umbel": (("flat-topped cluster", "lacy umbel"), ("middle",)),
    "globe": (("pompom head", "globe-like head"), ("collar",)),
}
SCENES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a grassy meadow", "in a summer meadow"),
    "snow": ("in fresh snow", "on a snowy slope"),
    "forest": ("in a deep forest", "on the forest floor"),
    "desert": ("on desert sand", "among desert dunes"),
    "pond": ("beside a still pond", "at the edge of a pond"),
    "dusk": ("at dusk", "in the glow of dusk"),
    "brick": ("against a brick wall", "by an old brick wall"),
    "sky": ("against a clear sky", "under a cloudy sky"),
    "rocks": ("among rocks", "on a rocky ledge"),
    "fence": ("by a wooden fence", "along a garden fence"),
    "night": ("under the stars at night", "on a moonlit night"),
    "autumn": ("on fallen autumn leaves", "in an autumn wood"),
}
_SCENE_KEYS = {
    "meadow": "meadow", "snow": "snow", "forest": "forest", "desert": "desert", "pond": "pond", "dusk": "dusk",
    "brick": "brick", "sky": "sky", "rock": "rocks", "fence": "fence", "night": "night", "autumn": "autumn",
}  # fmt: skip
FEATURES = ("form", "count", "shape", "colour", "accent", "leaves")


def put(values: Mapping[str, str], rng: Generator, said: Collection[str] = FEATURES) -> str:
    """A features phrase, without scene, e.g. "five rounded blue petals, a yellow centre and broad leaves".

    values: a value for every axis. said: the axes to mention; the form is always named.
    """

    def word(axis: str) -> str:
        return str(rng.choice(WORDS[axis][values[axis]])) if axis in said else ""

    names, accents = FORMS[values["form"]]
    article = "an open flower with " if values["form"] == "open" and rng.random() < 0.3 else ""
    petals = [word("count"), word("shape")] if values["form"] == "open" else []
    parts = [article + " ".join(w for w in [*petals, word("colour"), str(rng.choice(names))] if w)]
    if "accent" in said:
        accent = word("accent")
        parts.append(f"{'an' if accent[0] in 'aeiou' else 'a'} {accent} {rng.choice(accents)}")
    if "leaves" in said:
        parts.append(f"{word('leaves')} leaves")
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def put_scene(scene: str, rng: Generator) -> str:
    return str(rng.choice(SCENES[scene]))


def read(text: str) -> dict[str, str]:
    """The axes and the scene that a text names; later mentions of an axis are ignored."""
    return dict(_read(text))


@lru_cache(2**16)  # a list of descriptions comes again with each question about it
def _read(text: str) -> Mapping[str, str]:
    text = text.lower()
    found: dict[str, str] = {}
    form, before = _form(text)
    if form:
        found["form"] = form
        if form == "open":
            found |= _first(before, "count") | _first(before, "shape")
        else:
            found |= {"count": "one"}
        found |= _first(before, "colour")
    accents = "|".join(noun for _, nouns in FORMS.values() for noun in nouns)
    if match := re.search(rf"\b(\w+) (?:{accents})\b", text):
        found |= _first(match[1], "accent")
    if match := re.search(r"((?:[\w-]+ ){1,2})(?:leaves|foliage)\b(?<!autumn leaves)", text):
        found |= _first(match[1], "leaves")
    scenes = [(at, scene) for key, scene in _SCENE_KEYS.items() if (at := text.rfind(key)) >= 0]
    if scenes:
        found["scene"] = max(scenes)[1]
    return found


def _form(text: str) -> tuple[str | None, str]:
    """The form that is named first, and the few words before its name."""
    hits = []
    for form, (names, _) in FORMS.items():
        for name in names:
            head = name.split()[-1].rstrip("s")  # "bells" or "bell"
            if match := re.search(rf"((?:[\w-]+ ){{0,6}}){head}s?\b", text):
                hits.append((match.end(), form, match[1]))
    # "goblet-like bloom" and "globe-like head" share no noun with other forms, so the first noun decides.
    return (min(hits)[1], min(hits)[2]) if hits else (None, "")


def _first(text: str, axis: str) -> dict[str, str]:
    """The last value of `axis` named in `text`: the adjective nearest to the noun that follows."""
    hits = [
        (match.end(), value)
        for value, words in WORDS[axis].items()
        for word in words
        for match in re.finditer(rf"(?<![\w-]){word}(?![\w-])", text)
    ]
    return {axis: max(hits)[1]} if hits else {}
