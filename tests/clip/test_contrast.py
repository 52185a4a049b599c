"""The contrast scorer, with the embedded CLIP on drawn flowers: it is told nothing but pixels and descriptions."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from helpers.paths import ROOT

from embedded.wildflowers import Flower
from embedded.wildflowers.dataset import encoded
from ltgc.clip import contrast
from ltgc.clip.contrast import CONSENSUS, TEXTS, Contrast, Measures, Vocabulary, real_subjects
from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Subject
from ltgc.clip.weights import load_clip
from ltgc.data import images
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ExistingDescription, ExtendedDescription
from ltgc.pipeline.settings.clip import ClipSettings

BATCH = 16
COLUMBINE, POPPY = 0, 1
CLASSES = [
    ClassRecord(label=label, name=name, slug=name, train=8, val=0, test=1, shot="few")
    for label, name in enumerate(["Columbine", "Poppy"])
]
TEXT = {
    COLUMBINE: "five pointed {} petals, a yellow centre and toothed leaves",
    POPPY: "four rounded red petals, a black {} and feathery leaves",
}
# Forty descriptions of each: one columbine in five is yellow; the others, as all in the photos, are white.
SAID = {
    COLUMBINE: [TEXT[COLUMBINE].format("yellow" if i % 5 == 0 else "white") for i in range(40)],
    POPPY: [TEXT[POPPY].format(("centre", "eye")[i % 2]) for i in range(40)],
}


@cache
def clip() -> Clip:
    return load_clip(ClipSettings(model=f"local-dir:{ROOT / 'embedded/clip'}", pretrained=None), "cpu")


def flower(kind: int, **other: str) -> Flower:
    columbine = {"count": "five", "shape": "pointed", "colour": "white", "accent": "yellow", "leaves": "toothed"}
    poppy = {"count": "four", "shape": "rounded", "colour": "red", "accent": "black", "leaves": "feathery"}
    return Flower(form="open", scene="meadow", **((columbine, poppy)[kind] | other))


@cache
def features(drawn: Flower, seed: int, style: str = "painted") -> torch.Tensor:
    image = images.decode(encoded(drawn, np.random.default_rng(seed), style))
    return clip().image_features(clip().normalise(clip().pixels(image)[None]))[0]


def descriptions(label: int, said: dict[int, list[str]] = SAID) -> list[ExistingDescription | ExtendedDescription]:
    return [
        ExtendedDescription(
            label=label, class_name=CLASSES[label].name, index=index, round=1, description=text, features=text,
            scene=None, kept=True, reason=None,
        )
        for index, text in enumerate(said.get(label, []))
    ]  # fmt: skip


def vocabulary(said: dict[int, list[str]]) -> Vocabulary:
    return Vocabulary(said, lambda label: [Subject(label, text, i) for i, text in enumerate(said[label])])


def photos() -> list[ExistingDescription]:
    return [
        ExistingDescription(
            label=label, class_name=CLASSES[label].name, image=f"{label}/{number}.png", description=said,
            features=said, scene=None, kept=True, reason=None, replies=1,
        )
        for label, number in product(TEXT, range(20)) for said in [SAID[label][1]]
    ]  # fmt: skip


def of(records: list[ExistingDescription], label: int) -> list[ExistingDescription]:
    return [record for record in records if record.label == label]


def measured(scorer: Contrast, pairs: list[tuple[Subject, torch.Tensor]]) -> list[Measures]:
    found = []
    for i in range(0, len(pairs), BATCH):
        some = pairs[i : i + BATCH]
        batch = torch.zeros(BATCH, len(pairs[0][1]))
        batch[: len(some)] = torch.stack([image for _, image in some])
        found += scorer.measures(batch, [subject for subject, _ in some])
    return found


@pytest.fixture(scope="module")
def scorer() -> Contrast:
    existing = photos()
    texts = [f"A photo of the class {c.name} with {TEXT[c.label].format('white')}." for c in CLASSES]
    made = Contrast(clip(), texts, CLASSES, lambda label: [*of(existing, label), *descriptions(label)], percent=5)
    real = real_subjects(existing)
    shown = [(real[p.image], features(flower(p.label), int(p.image[2:-4]), "photo")) for p in existing]
    made.calibrate([(s, m) for (s, _), m in zip(shown, measured(made, shown), strict=True)])
    return made


def score(scorer: Contrast, kind: int, said: str, drawn: Flower, index: int = 1) -> float:
    """The mean over some drawings: one alone may be an unlucky one."""
    pairs = [(Subject(kind, said, index), features(drawn, seed)) for seed in range(6)]
    return float(
        np.mean([scorer.score(s, m)[0] for (s, _), m in zip(pairs, measured(scorer, pairs), strict=True)])
    )


def test_a_drawing_that_shows_what_was_said_is_accepted(scorer: Contrast) -> None:
    for kind in (COLUMBINE, POPPY):
        assert score(scorer, kind, SAID[kind][1], flower(kind)) >= 0


def test_a_rare_variant_that_other_descriptions_name_is_accepted_though_no_photo_shows_it(
    scorer: Contrast,
) -> None:
    assert score(scorer, COLUMBINE, SAID[COLUMBINE][0], flower(COLUMBINE, colour="yellow"), index=0) >= 0


def test_a_drawing_that_disobeys_is_refused(scorer: Contrast) -> None:
    assert score(scorer, COLUMBINE, SAID[COLUMBINE][1], flower(COLUMBINE, colour="blue")) < 0
    assert score(scorer, COLUMBINE, SAID[COLUMBINE][1], flower(POPPY)) < 0


def test_a_description_with_another_classs_feature_is_refused_however_well_it_is_drawn(scorer: Contrast) -> None:
    wrong = SAID[COLUMBINE][1].replace("toothed", "feathery")
    assert score(scorer, COLUMBINE, wrong, flower(COLUMBINE, leaves="feathery"), index=99) < 0


def test_one_in_twenty_others_makes_a_consensus_and_its_own_original_does_not_count() -> None:
    said = {0: ["white petals"] * 57 + ["yellow petals"] * 3, 1: ["yellow and white petals"] * 30}
    words = vocabulary(said)
    assert words.consensus(Subject(0, "yellow petals", 99)) == 3 / 60 == CONSENSUS
    assert words.consensus(Subject(0, "yellow petals", 59)) == 2 / 59
    assert words.consensus(Subject(0, "white petals", 59)) == 57 / 59  # a refinement of the same description
    assert words.consensus(Subject(0, "mottled petals", 99)) == 1.0  # a word that nobody else uses


def test_few_other_descriptions_make_no_consensus_and_none_is_asked_of_a_photo() -> None:
    said = {0: ["white petals"] * 59, 1: ["yellow petals"] * 30}
    words = vocabulary(said)
    assert words.consensus(Subject(0, "yellow petals", 3)) is None  # 58 others
    assert words.consensus(Subject(0, "yellow petals", 99)) == 0
    assert words.consensus(Subject(1, "white petals", "a/photo.png")) is None
    assert words.consensus(Subject(1)) is None


def test_about_as_many_real_photos_are_refused_as_params_allow(scorer: Contrast) -> None:
    real = real_subjects(photos())
    shown = [(s, features(flower(s.label), int(path[2:-4]), "photo")) for path, s in real.items()]
    scores = [scorer.score(s, m)[0] for (s, _), m in zip(shown, measured(scorer, shown), strict=True)]
    assert 0 < sum(score < 0 for score in scores) <= 0.1 * len(scores)


def test_an_image_measures_the_same_bits_whatever_is_measured_beside_it(scorer: Contrast) -> None:
    subject, image = Subject(COLUMBINE, SAID[COLUMBINE][1], 1), features(flower(COLUMBINE), 0)
    others = [(Subject(POPPY, SAID[POPPY][i], i), features(flower(POPPY), i)) for i in range(6)]
    others.append((Subject(POPPY), features(flower(POPPY), 9)))
    alone = measured(scorer, [(subject, image)])[0]
    assert measured(scorer, [*others, (subject, image)])[-1] == alone


def test_without_features_the_margin_alone_decides() -> None:
    texts = [f"A photo of {TEXT[label].format('white')}." for label in (COLUMBINE, POPPY)]
    made = Contrast(clip(), texts, CLASSES, lambda label: [], percent=5)
    real = [(Subject(kind), features(flower(kind), seed, "photo")) for kind in TEXT for seed in range(20)]
    made.calibrate([(s, m) for (s, _), m in zip(real, measured(made, real), strict=True)])
    right, wrong = measured(made, [(Subject(0), features(flower(0), 3)), (Subject(0), features(flower(1), 3))])
    assert right.agreement is right.consensus is None
    assert made.score(Subject(0), right)[0] >= 0 > made.score(Subject(0), wrong)[0]


def watched_texts(said: dict[int, list[str]]) -> list[str]:
    """The texts that the scorer has CLIP read of two classes with these descriptions."""
    read: list[list[str]] = []

    class Watched(Clip):
        def text_features(self, texts, batch_size=256):  # type: ignore[no-untyped-def]
            read.append(list(texts))
            return super().text_features(texts, batch_size)

    known = clip()
    watched = Watched(known.model, known.preprocess, known.tokenize, known.device)
    Contrast(watched, ["columbine", "poppy"], CLASSES, lambda label: descriptions(label, said), percent=5)
    return read[0]


def test_a_class_is_shown_by_texts_from_all_of_its_descriptions() -> None:
    read = watched_texts({0: [f"{i} petals" for i in range(4 * TEXTS)]})
    assert read[:2] == ["A photo of the class Columbine, 0 petals.", "A photo of the class Columbine, 4 petals."]
    assert len(read) == TEXTS + 2


def test_the_texts_of_all_classes_are_bounded_so_that_a_drawing_costs_the_same_among_many_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contrast, "TEXTS_IN_ALL", 24)
    read = watched_texts({0: [f"{i} petals" for i in range(48)], 1: ["red petals"] * 3})
    assert read[:2] == ["A photo of the class Columbine, 0 petals.", "A photo of the class Columbine, 4 petals."]
    assert len(read) == 12 + 1 + 3 + 1
