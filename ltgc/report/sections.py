"""The tables of the page, from what the stages wrote. The HTML is in templates/."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltgc.data.roots import MADE
from ltgc.evaluation.comparison import LOWER_IS_BETTER, Comparison, best, statistic
from ltgc.pipeline.artifacts.dataset import ClassRecord, Finding
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.pipeline.artifacts.runs import ClassAccuracy, Prediction
from ltgc.report.answers import Pair
from ltgc.report.selection import by_label
from ltgc.report.style import SHOT_COLOURS

FINDINGS_SHOWN = 200  # of a kind
PAIRS_SHOWN = 12  # confusions mended, and made


def comparison_rows(comparison: Comparison, control: str | None) -> list[dict[str, Any]]:
    """One row a method: its name and a cell a metric, with the difference to the control in points."""
    rows = []
    for method, metrics in comparison.items():
        cells = []
        for metric, value in metrics.items():
            base = comparison[control][metric]["mean"] if control else None
            mean = value["mean"]
            difference = None if method == control or mean is None or base is None else round(mean - base, 2)
            better = difference is not None and (difference < 0) == (metric in LOWER_IS_BETTER)
            cells.append(
                value | {"best": method in best(comparison, metric), "difference": difference, "better": better}
            )
        rows.append({"method": method, "cells": cells})
    return rows


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


def looked_for(data: Mapping[str, Any]) -> str:
    """What an empty list of findings means, from the section data of params.yaml."""
    if data["source"] in MADE:
        return "The images were made by prepare, so they were not searched for bad files and duplicates."
    if not data["verify"]:
        return "The images were not looked at: data.verify is false."
    if data["near_duplicates"] is None:
        return "Every image can be used. Test images that nearly are training images were not looked for."
    return "Every image can be used, and no test image nearly is a training image."


def flow(loops: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From images described to images used: each step's total and what it is made of, what was kept first."""
    describe, extend, generate = loops["describe"], loops["extend"], loops["generate"]
    return [
        _step("Existing descriptions", "images shown to the vision model", describe),
        _step("Extended descriptions", f"received from the LLM, {extend['asked']:,} wanted", extend),
        {
            "title": "Drawn and checked",
            "what": f"descriptions, {generate['drawn']:,} drawings",
            "total": generate["descriptions"],
            "segments": [
                {"name": "accepted at once", "count": generate["at_once"], "kind": "kept"},
                {"name": "accepted after refinement", "count": generate["after_refinement"], "kind": "mended"},
                {"name": "rejected", "count": generate["rejected"], "kind": "dropped"},
                *_dropped(generate["failed"]),
            ],
        },
    ]


def _step(title: str, what: str, loop: Mapping[str, Any]) -> dict[str, Any]:
    segments = [{"name": "kept", "count": loop["kept"], "kind": "kept"}, *_dropped(loop["dropped"])]
    return {"title": title, "what": what, "total": sum(s["count"] for s in segments), "segments": segments}


def _dropped(reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "count": count, "kind": "dropped"} for name, count in reasons.items()]


def rounds(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
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
    classes: Sequence[ClassRecord], predictions: Mapping[str, Sequence[Sequence[Prediction]]], pair: Pair | None
) -> dict[str, list[dict[str, Any]]]:
    """What ours mends and makes against the control: pairs (class, what it is taken for), largest first.

    predictions: method -> predictions of each seed. Counts are test images a seed. {} where one method is absent.
    """
    if pair is None or not set(pair) <= set(predictions):
        return {}
    names = {c.label: c for c in classes}
    counts_before, counts_after = _confused(predictions[pair.control]), _confused(predictions[pair.ours])
    rows: list[dict[str, Any]] = []
    for label, taken_for in sorted(set(counts_before) | set(counts_after)):
        before, after = (counts.get((label, taken_for), 0.0) for counts in (counts_before, counts_after))
        rows.append(
            {
                "c": names[label],
                "taken_for": names[taken_for],
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
        of_class = by_label(rows)
        means[method] = {
            label: statistic([row.accuracy for row in own])["mean"] or 0.0 for label, own in of_class.items()
        }
    return means


def gain(accuracy: Mapping[str, Mapping[int, float]], label: int, pair: Pair | None) -> float | None:
    """Points that ours gains on a class against the control; None where one of them has no figure."""
    values = [accuracy.get(method, {}).get(label) for method in pair or ()]
    return values[0] - values[1] if values and values[0] is not None and values[1] is not None else None
