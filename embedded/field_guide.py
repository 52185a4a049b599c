"""The embedded language model: it knows a field guide of wildflowers and answers like a model, untidily.

It recognises what it is asked by a few words of the question, as it recognises a species by its name.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from numpy.random import Generator

from embedded import rates, words
from embedded.wildflowers import SCENES, Flower, Species, load_species

WORLD = Path(__file__).parent / "wildflowers"
LIST_STYLES = ("{n}. {line}", "- {line}", "{n}. **{line}**", "* {line}", "{n}) {line}", "{line}")
SLOT_STYLES = (("{", "}"), ("**", "**"), ("", ""), ("", ""))  # around features and scene


@cache
def species() -> dict[str, Species]:
    return {s.name: s for s in load_species(WORLD)}


@cache
def english() -> dict[str, str]:
    with (WORLD / "synonyms.csv").open(newline="", encoding="utf-8") as file:
        return {row["class_name"]: row["synonym"] for row in csv.DictReader(file)}


def find_species(text: str) -> Species | None:
    """The species that a text names first."""
    hits = [(at, name) for name in species() if (at := text.find(name)) >= 0]
    return species()[min(hits)[1]] if hits else None


def answer(question: str, rng: Generator) -> str:
    """The reply to a question without an image."""
    if "which of these classes" in question.lower():
        return identify(question, _told(question), rng)
    kind = find_species(question)
    if kind is None:
        return "I'm sorry, I could not find that species in my field guide."
    text = question.lower()
    if "refine" in text:
        return _refine(kind, question, rng)
    if "exclude" in text:
        return _exclude_repeats(kind, question, rng)
    if "summarize" in text or "summarise" in text:
        return _summarize(kind, rng)
    if "other" in text:
        return _list_other(kind, question, rng)
    return f"{kind.name} is a wildflower with {words.put(_typical(kind), rng)}."


def key(text: str) -> tuple[tuple[str, str], ...]:
    """What a description says, however it says it: equal keys are repeats of one another."""
    return tuple(sorted(words.read(text).items()))


def entries(text: str) -> list[str]:
    """The descriptions in a text, one a line."""
    return [
        line.strip() for line in text.splitlines() if "photo of the class" in line.lower() and words.read(line)
    ]


def _typical(kind: Species) -> dict[str, str]:
    return {axis: max(values, key=lambda v: values[v]) for axis, values in kind.features.items()}


def _with_sibling_feature(kind: Species, flower: Flower, rng: Generator) -> Flower:
    """The flower with one feature that only its sibling has."""
    sibling = species()[kind.sibling].sample(rng)
    wrong = [a for a, values in kind.features.items() if getattr(sibling, a) not in values]
    if "form" in wrong:  # the other features of another form make no sense on this one
        return replace(sibling, scene=flower.scene)
    return replace(flower, **{a: getattr(sibling, a) for a in [str(rng.choice(wrong))]}) if wrong else flower


def describe(name: str, flower: Flower, rng: Generator) -> str:
    """A description in Template 1, its slots marked as models mark them."""
    left, right = SLOT_STYLES[rng.integers(len(SLOT_STYLES))]
    features, scene = words.put(vars(flower), rng), words.put_scene(flower.scene, rng)
    gap = " " if right != "}" else ""
    return f"A photo of the class {name}, {left}with {features}{right}{gap}{left}{scene}{right}."


def prose(name: str, flower: Flower, rng: Generator) -> str:
    features, scene = words.put(vars(flower), rng), words.put_scene(flower.scene, rng)
    return f"The image shows a lovely flower. You can see {features}, and it stands {scene}."


def tag(flower: Flower, rng: Generator) -> str:
    """Tags and captions of a flower. A tag names one feature, a caption some of them and where it stands."""
    axes = [str(axis) for axis in rng.permutation([a for a in words.FEATURES if a != "form"])[: rates.TAGS]]
    tags = [words.put(vars(flower), rng, [axis]) for axis in axes]
    captions = []
    for _ in range(3):
        some = [axis for axis in words.FEATURES if rng.random() < rates.CAPTIONED]
        captions.append(f"A photo of {words.put(vars(flower), rng, some)} {words.put_scene(flower.scene, rng)}.")
    return f"Tags: flower, {', '.join(tags)}\nCaptions:\n" + "\n".join(f"- {caption}" for caption in captions)


def _told(question: str) -> dict[str, str]:
    """What a question that lists species says of one flower: the first that it says on each axis."""
    told: dict[str, str] = {}
    for line in question.splitlines():
        if line not in species():
            for piece in line.split(","):
                told = words.read(piece) | told
    return told


def identify(question: str, flower: Mapping[str, str], rng: Generator) -> str:
    """The species of the question's list that a flower looks most like, named as models name things.

    flower: its values, on all axes or some.
    """
    listed = set(question.splitlines())
    kinds = [kind for kind in species().values() if kind.name in listed]
    if not kinds or rng.random() < rates.UNSURE:
        return "I'm sorry, but I can't say with confidence which of these species the image shows."
    name = max(kinds, key=lambda kind: kind.likelihood(flower)).name
    if rng.random() < rates.ENGLISH:
        name = english()[name]
        if rng.random() < rates.PLURAL:
            name = f"{name[:-1]}ies" if name.endswith("y") else f"{name}{'es' if name.endswith('s') else 's'}"
    if rng.random() < rates.LOWER_CASE:
        name = name.lower()
    return f"The flower in this image looks like **{name}**." if rng.random() < rates.SENTENCE else name


def _list_other(kind: Species, question: str, rng: Generator) -> str:
    listed = entries(question)
    known = {key(line) for line in listed}
    rivals = find_rivals(question)
    lines: list[str] = []
    wanted = re.search(r"up to (\d+) descriptions", question)
    most = int(wanted[1]) + int(rng.random() < 0.3) if wanted else 11  # now and then one more than asked for
    for _ in range(min(most, int(rng.integers(7, 12)))):
        draw = rng.random()
        if draw < rates.REPEAT and listed:
            said = words.read(str(rng.choice(listed + lines)))
            flower = replace(kind.sample(rng), **said)
        elif draw < rates.REPEAT + rates.NOT_IN_TEMPLATE:
            scene = words.put_scene(str(rng.choice(SCENES)), rng)
            lines.append(f"{kind.name} can also be found {scene}, where it flowers in early summer.")
            continue
        else:
            flower = _new_flower(kind, known, rng, rivals)
            if rng.random() < rates.SIBLING:
                flower = _with_sibling_feature(kind, flower, rng)
        lines.append(describe(kind.name, flower, rng))
        known.add(key(lines[-1]))
    return _as_list(lines, f"Sure! Here are other possible descriptions for the class {kind.name}:", rng)


def find_rivals(question: str) -> list[Species]:
    """The species that the question says its own is often taken for."""
    said = re.search(r"often taken for ([^:]+):", question)
    return [species()[name] for name in re.findall(r'"([^"]+)"', said[1]) if name in species()] if said else []


def _new_flower(
    kind: Species, known: set[tuple[tuple[str, str], ...]], rng: Generator, rivals: Iterable[Species] = ()
) -> Flower:
    """A flower that is not listed yet, if a few tries find one: a model, too, runs dry.

    Nor one that could be of a rival, if there are such flowers.
    """
    for _ in range(8):
        flower = kind.sample(rng)
        is_new = key(describe(kind.name, flower, rng)) not in known
        if is_new and not any(rival.shows(flower) for rival in rivals):
            break
    return flower


def _as_list(lines: Iterable[str], preamble: str, rng: Generator) -> str:
    style = LIST_STYLES[rng.integers(len(LIST_STYLES))]
    text = "\n".join(style.format(n=n, line=line) for n, line in enumerate(lines, 1))
    if rng.random() < rates.PREAMBLE:
        text = f"{preamble}\n\n{text}"
    if rng.random() < 0.3:
        text += "\n\nLet me know if you need more descriptions!"
    return text


def _exclude_repeats(kind: Species, question: str, rng: Generator) -> str:
    seen: set[tuple[tuple[str, str], ...]] = set()
    kept = []
    for line in entries(question):
        repeated = key(line) in seen
        seen.add(key(line))
        if line.startswith("-"):  # shown as known, and no entry of the list
            continue
        if rng.random() < (rates.OVERLOOKED if repeated else 1 - rates.OVERZEALOUS):
            kept.append(line)
        if rng.random() < rates.INVENTED:
            kept.append(describe(kind.name, kind.sample(rng), rng))
    numbered = [line for line in kept if re.match(r"\d+[.)]", line)]
    text = "\n".join(kept) if numbered else "\n".join(f"{n}. {line}" for n, line in enumerate(kept, 1))
    return f"Here is the list without repetitions:\n\n{text}" if rng.random() < rates.PREAMBLE else text


def _summarize(kind: Species, rng: Generator) -> str:
    features = words.put(_typical(kind), rng)
    parts = re.split(r", | and (?=\w+(?: \w+)? leaves)", features)
    if rng.random() < 0.5:
        return f"A photo of the class {kind.name} with " + "".join("{" + part + "}" for part in parts) + "."
    return f"**A photo of the class {kind.name} with {features}.**"


def _refine(kind: Species, question: str, rng: Generator) -> str:
    lines = entries(question)
    said = words.read(lines[0] if lines else question)  # what was tried before it comes after it
    flower = replace(kind.sample(rng), **{k: v for k, v in said.items() if k == "scene"})
    right = {a: v for a, v in said.items() if a in kind.features and v in kind.features[a]}
    flower = replace(flower, **(said if rng.random() < rates.STUBBORN else right))
    text = describe(kind.name, flower, rng)
    return f"Certainly! Here is a refined description:\n\n{text}" if rng.random() < 0.4 else text
