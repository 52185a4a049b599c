"""What each section of the page shows, from what the stages wrote. No HTML here."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file
from ltgc.evaluation.comparison import LOWER_IS_BETTER, Comparison, best, statistic
from ltgc.evaluation.loop_metrics import refinement_chains
from ltgc.pipeline.artifacts.dataset import ClassRecord, Finding, ImageRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import Attempt, ClassQuality
from ltgc.pipeline.artifacts.runs import ClassAccuracy, Prediction
from ltgc.report.style import BASELINE, OURS, SHOT_COLOURS
from ltgc.report.thumbnails import Thumbnails

T = TypeVar("T")

# What keeps the page small whatever the data set: 1,000 classes with 300 texts each would be 45 MB.
CLASSES_SHOWN = 60  # fold-outs: the classes with the fewest training images
ORIGINALS = 12  # of a class
GENERATED = 24  # of a class
CHAINS_SHOWN = 30  # refinements of a class
DESCRIPTIONS_SHOWN = 100  # of a class and list
FINDINGS_SHOWN = 200  # of a kind
PAIRS_SHOWN = 12  # confusions mended, and made


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a method: its name and a cell a metric, with the difference to CLIP fine-tune in points."""
    rows = []
    for method, metrics in comparison.items():
        cells = []
        for metric, value in metrics.items():
            base = comparison[BASELINE][metric]["mean"] if BASELINE in comparison else None
            mean = value["mean"]
            difference = None if method == BASELINE or mean is None or base is None else mean - base
            better = difference is not None and (difference < 0) == (metric in LOWER_IS_BETTER)
            cells.append(
                value | {"best": method in best(comparison, metric), "difference": difference, "better": better}
            )
        rows.append({"method": method, "cells": cells})
    return rows


def verdict(comparison: Comparison) -> list[dict[str, Any]]:
    """BalanceMix against CLIP fine-tune on few and all, the claim of the paper; [] if one of them was not run.

    `leaders`: the methods that are best, where BalanceMix is not one of them.
    """
    if not {OURS, BASELINE} <= set(comparison):
        return []
    sentences = []
    for metric, words in (("few", "few-shot classes"), ("all", "all test images")):
        ours, base = comparison[OURS][metric], comparison[BASELINE][metric]
        if ours["mean"] is None or base["mean"] is None:
            continue
        difference = ours["mean"] - base["mean"]
        leaders = sorted(best(comparison, metric))
        sentences.append(
            {
                "words": words,
                "ours": ours,
                "difference": difference,
                "beyond_noise": abs(difference) > (ours["std"] or 0) + (base["std"] or 0),
                "leaders": [] if OURS in leaders else leaders,
                "best": comparison[leaders[0]][metric],
            }
        )
    return sentences


def shot_rows(classes: Sequence[ClassRecord]) -> list[dict[str, Any]]:
    groups = {shot: [c for c in classes if c.shot == shot] for shot in SHOT_COLOURS} | {"all": list(classes)}
    return [
        {
            "shot": shot,
            "classes": len(group),
            "train": sum(c.train for c in group),
            "val": sum(c.val for c in group),
            "test": sum(c.test for c in group),
        }
        for shot, group in groups.items()
    ]


def findings(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """What prepare noticed, by kind: how many, and the first of them."""
    titles = {
        "bad": "cannot be used",
        "converted": "converted to 8-bit RGB",
        "near_duplicate": "test images that nearly are training images",
        "skipped": "files that are no image of the data set",
    }
    of_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in found:
        of_kind[finding.kind].append(finding)
    return [
        {"title": title, "count": len(of_kind[kind]), "shown": of_kind[kind][:FINDINGS_SHOWN]}
        for kind, title in titles.items()
        if kind in of_kind
    ]


def flow(loops: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From images asked about to images used: each step's total, and its parts in order, the kept ones first."""
    describe, extend, generate = loops["describe"], loops["extend"], loops["generate"]
    return [
        _step("Existing descriptions", "images shown to the vision model", describe),
        _step("Extended descriptions", f"received from the LLM, {extend['asked']:,} wanted", extend),
        {
            "title": "Drawn and checked",
            "what": f"descriptions, {generate['drawn']:,} drawings",
            "total": generate["descriptions"],
            "parts": [
                {"name": "accepted at once", "count": generate["at_once"], "kind": "kept"},
                {"name": "accepted after refinement", "count": generate["after_refinement"], "kind": "mended"},
                {"name": "rejected", "count": generate["rejected"], "kind": "dropped"},
                *_dropped(generate["failed"]),
            ],
        },
    ]


def _step(title: str, what: str, loop: Mapping[str, Any]) -> dict[str, Any]:
    parts = [{"name": "kept", "count": loop["kept"], "kind": "kept"}, *_dropped(loop["dropped"])]
    return {"title": title, "what": what, "total": sum(part["count"] for part in parts), "parts": parts}


def _dropped(reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "count": count, "kind": "dropped"} for name, count in reasons.items()]


def rounds(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Each round of refinement: what was drawn, and what became of it."""
    verdicts: dict[int, Counter[str]] = defaultdict(Counter)
    for attempt in attempts:
        verdicts[attempt.round][attempt.verdict] += 1
    return [
        {
            "round": number,
            "drawn": sum(counted.values()),
            "accepted": counted["accepted"],
            "turned_down": counted["refined"] + counted["rejected"],
            "failed": counted["failed"],
        }
        for number, counted in sorted(verdicts.items())
    ]


def confusions(
    classes: Sequence[ClassRecord], predictions: Mapping[str, Sequence[Sequence[Prediction]]]
) -> dict[str, list[dict[str, Any]]]:
    """Pairs (class, what it is taken for) that BalanceMix mends and makes against CLIP fine-tune, largest first.

    predictions: method -> predictions of each seed. Counts are test images a seed. {} where one method is absent.
    """
    if not {BASELINE, OURS} <= set(predictions):
        return {}
    names = {c.label: c for c in classes}
    counts = {method: _confused(predictions[method]) for method in (BASELINE, OURS)}
    rows: list[dict[str, Any]] = []
    for pair in sorted(set(counts[BASELINE]) | set(counts[OURS])):
        before, after = counts[BASELINE].get(pair, 0.0), counts[OURS].get(pair, 0.0)
        rows.append(
            {
                "c": names[pair[0]],
                "taken_for": names[pair[1]],
                "before": before,
                "after": after,
                "change": after - before,
            }
        )
    rows.sort(key=lambda row: (row["change"], row["c"].label, row["taken_for"].label))
    return {
        "mended": [row for row in rows[:PAIRS_SHOWN] if row["change"] < 0],
        "made": [row for row in rows[::-1][:PAIRS_SHOWN] if row["change"] > 0],
    }


def _confused(seeds: Sequence[Sequence[Prediction]]) -> dict[tuple[int, int], float]:
    """(label, prediction) -> test images a seed, of the wrong predictions."""
    total = Counter((p.label, p.prediction) for seed in seeds for p in seed if p.label != p.prediction)
    return {pair: count / len(seeds) for pair, count in total.items()}


def mean_accuracy(accuracies: Mapping[str, Sequence[ClassAccuracy]]) -> dict[str, dict[int, float]]:
    """method -> label -> mean accuracy over seeds, percent."""
    means: dict[str, dict[int, float]] = {}
    for method, rows in accuracies.items():
        of_class = group(rows)
        means[method] = {
            label: statistic([row.accuracy for row in own])["mean"] or 0.0 for label, own in of_class.items()
        }
    return means


def gain(accuracy: Mapping[str, Mapping[int, float]], label: int) -> float | None:
    """Points that BalanceMix gains on a class against CLIP fine-tune; None where one of them has no figure."""
    values = [accuracy.get(method, {}).get(label) for method in (OURS, BASELINE)]
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def classes_shown(classes: Sequence[ClassRecord]) -> list[ClassRecord]:
    """Fewest training images first, at most CLASSES_SHOWN: generated content is for these."""
    return sorted(classes, key=lambda c: (c.train, c.label))[:CLASSES_SHOWN]


def group(records: Iterable[Any]) -> dict[int, list[Any]]:
    """Records by their label."""
    of_class: dict[int, list[Any]] = defaultdict(list)
    for record in records:
        of_class[record.label].append(record)
    return of_class


def originals(manifest: Sequence[ImageRecord], image_root: Path) -> dict[int, list[ImageFile]]:
    """label -> training images."""
    return {
        label: [image_file(image_root, image) for image in own]
        for label, own in group(image for image in manifest if image.split == "train").items()
    }


def generated(attempts: Sequence[Attempt]) -> dict[int, list[Attempt]]:
    """label -> accepted drawings."""
    return group(a for a in attempts if a.verdict == "accepted" and a.image is not None)


def fold_outs(
    shown: Sequence[ClassRecord],
    of_class: Mapping[int, Sequence[ImageFile]],
    drawn: Mapping[int, Sequence[Attempt]],
    existing: Sequence[ExistingDescription],
    extended: Sequence[ExtendedDescription],
    templates: Sequence[ClassTemplate],
    attempts: Sequence[Attempt],
    quality: Sequence[ClassQuality],
    thumbnails: Thumbnails,
    budget: int,
) -> list[dict[str, Any]]:
    """Everything about each class of `shown`, `budget` bytes of thumbnails shared out evenly."""
    said, added, template = group(existing), group(extended), {t.label: t for t in templates}
    measured = {q.label: q for q in quality}
    turned_down: dict[int, list[list[Attempt]]] = defaultdict(list)
    for chain in refinement_chains(attempts):
        if _turned_down(chain):
            turned_down[chain[0].label].append(chain)
    entries = []
    for c in shown:
        thumbnails.allow(budget // len(shown))
        own, images, chains = of_class.get(c.label, []), drawn.get(c.label, []), turned_down[c.label]
        entries.append(
            {
                "c": c,
                "template": template.get(c.label),
                "quality": measured.get(c.label),
                "originals": {
                    "total": len(own),
                    "shown": [thumbnails.uri(path) for path in spaced(own, ORIGINALS)],
                },
                "generated": {
                    "total": len(images),
                    "shown": [(thumbnails.uri(a.image or ""), a) for a in spaced(images, GENERATED)],
                },
                "existing": said.get(c.label, []),
                "extended": sorted(added.get(c.label, []), key=lambda e: e.index),
                "chains": {
                    "total": len(chains),
                    "mended": sum(chain[-1].verdict == "accepted" for chain in chains),
                    "shown": [_chain(chain, thumbnails) for chain in chains[:CHAINS_SHOWN]],
                },
            }
        )
    return entries


def mended_chains(attempts: Sequence[Attempt], classes: Sequence[ClassRecord]) -> list[list[Attempt]]:
    """Refinements that ended well, for Fig. 7: one a class, rarest classes first, then the second of each."""
    of_class: dict[int, list[list[Attempt]]] = defaultdict(list)
    for chain in refinement_chains(attempts):
        if len(chain) > 1 and chain[-1].verdict == "accepted" and chain[0].score is not None:
            of_class[chain[0].label].append(chain)
    order = [c.label for c in sorted(classes, key=lambda c: (c.train, c.label))]
    most = max(map(len, of_class.values()), default=0)
    return [of_class[label][turn] for turn in range(most) for label in order if turn < len(of_class[label])]


def spaced(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of `values`, evenly spaced: the first ones alone would show one scene."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def _below(attempt: Attempt) -> bool:
    return attempt.score is not None and attempt.threshold is not None and attempt.score < attempt.threshold


def _turned_down(chain: Sequence[Attempt]) -> bool:
    """Whether CLIP scored a drawing below the threshold, or the image model refused and the text was refined."""
    return len(chain) > 1 or any(_below(attempt) for attempt in chain)


def _chain(chain: Sequence[Attempt], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Each attempt with its image, and the words that are new against the description it refines."""
    steps = []
    before: str | None = None
    for attempt in chain:
        uri = None if attempt.image is None else thumbnails.uri(attempt.image)
        steps.append(
            {"a": attempt, "uri": uri, "below": _below(attempt), "text": new_words(before, attempt.prompt)}
        )
        before = attempt.prompt
    return steps


def new_words(before: str | None, after: str) -> list[tuple[str, bool]]:
    """`after` in pieces, each with whether it is new against `before` (nothing is, where there is none)."""
    if before is None:
        return [(after, False)]
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    return [
        (" ".join(new[start:end]), tag != "equal")
        for tag, _, _, start, end in matcher.get_opcodes()
        if end > start
    ]
