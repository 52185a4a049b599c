"""The comparison of methods (§4.1, Tables 1 to 4): mean and spread over seeds, paired differences."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltgc.evaluation import uncertainty
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.asking import AskMetrics
from ltgc.pipeline.artifacts.runs import PER_CLASS, PREDICTIONS, RUN_METRICS, ClassAccuracy, Prediction, RunMetrics
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS

# metric -> heading; all in percent
METRICS = {
    "all": "All",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "harmonic_mean": "H-mean",
    "worst_class": "Worst",
    "ece": "ECE",
}
LOWER_IS_BETTER = frozenset({"ece"})
LMM = "lmm"  # the vision model, asked directly (Table 3)

# {"mean": ..., "std": ...}; both None where the group has no class, std None where there was one run and no seed.
# Of a difference also "margin": half of its 95 % interval (ltgc/evaluation/uncertainty.py), None where unknown.
Statistic = dict[str, float | None]
Comparison = dict[str, dict[str, Statistic]]  # method -> metric -> statistic


@dataclass(frozen=True)
class Results:
    """Every run of the methods that could run, and why the others could not."""

    runs: dict[str, list[RunMetrics]]  # method -> metrics of each seed
    accuracies: dict[str, list[ClassAccuracy]]  # method -> rows of all seeds
    skipped: dict[str, str]  # method -> reason


def read_results(methods: Sequence[str], seeds: Sequence[int]) -> Results:
    """What evaluate wrote. Raises LTGCError naming a file that is missing or malformed."""
    results = Results({}, {}, {})
    for method in methods:
        runs = [files.read_record(RUN_METRICS / method / f"{seed}.json", RunMetrics) for seed in seeds]
        if reasons := [run.skipped for run in runs if run.skipped]:
            results.skipped[method] = reasons[0]
            continue
        results.runs[method] = runs
        results.accuracies[method] = [
            row for seed in seeds for row in files.read_csv(PER_CLASS / method / f"{seed}.csv", ClassAccuracy)
        ]
    return results


def differences_to_control(results: Results, seeds: Sequence[int]) -> Comparison:
    """What metrics/paired.json holds: each method less the control; empty without a control.

    Raises LTGCError naming a file of predictions that is missing or malformed.
    """
    reference = control(summarise(results.runs))
    if reference is None:
        return {}
    correct: dict[str, NDArray[np.bool_]] = {}
    for method in results.runs:
        of_seeds = [files.read_csv(PREDICTIONS / method / f"{seed}.csv", Prediction) for seed in seeds]
        correct[method] = np.array([[p.prediction == p.label for p in rows] for rows in of_seeds])
    labels = np.array([p.label for p in of_seeds[0]])
    classes = results.accuracies[reference][: len(results.accuracies[reference]) // len(seeds)]
    return differences(results.runs, reference, uncertainty.image_std(correct, labels, classes, reference))


def summarise(runs: Mapping[str, Sequence[RunMetrics]]) -> Comparison:
    """Mean and sample standard deviation (0 for one seed), in percent with 2 decimals.

    runs: method -> the metrics of each seed. The result is what metrics/compare.json holds.
    """
    return {
        method: {metric: statistic([getattr(run, metric) for run in seeds]) for metric in METRICS}
        for method, seeds in runs.items()
    }


def lmm_row(asked: AskMetrics) -> Comparison:
    """The row of the vision model, which was asked once and has no spread; none where it was not asked."""
    if asked.all is None:
        return {}
    return {LMM: {metric: {"mean": getattr(asked, metric, None), "std": None} for metric in METRICS}}


def control(comparison: Comparison) -> str | None:
    """The method without drawings whose mean over all test images is the best; None where none of them ran.

    It is picked by the very test images that the others are then held against: that favours the control.
    """
    ran = [method for method in WITHOUT_DRAWINGS if method in comparison]
    return max(ran, key=lambda method: comparison[method]["all"]["mean"] or 0.0, default=None)


def differences(
    runs: Mapping[str, Sequence[RunMetrics]],
    reference: str,
    image_std: Mapping[str, Mapping[str, float]] | None = None,
) -> Comparison:
    """Each method less `reference`, seed by seed: mean, standard deviation and margin in points, 2 decimals.

    Runs of one seed saw the same data in the same order where their methods allow it, so the spread of their
    difference is what the difference of two means should be held against.
    image_std: method -> metric -> what test images add to the margin; without it, and for ECE, the seeds are all.
    """
    return {
        method: {
            metric: _difference(
                [_less(getattr(a, metric), getattr(b, metric)) for a, b in pairs],
                (image_std or {}).get(method, {}).get(metric, 0.0),
            )
            for metric in METRICS
        }
        for method, seeds in runs.items()
        if method != reference and (pairs := list(zip(seeds, runs[reference], strict=True)))
    }


def _difference(values: Sequence[float | None], image_std: float) -> Statistic:
    present = [value for value in values if value is not None]
    std = statistics.stdev(present) if len(present) > 1 else 0.0
    margin = uncertainty.margin(std, len(present), image_std)
    return statistic(values) | {"margin": None if margin is None else round(margin, 2)}


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def beyond_noise(difference: Statistic) -> bool:
    """Whether the 95 % interval of the difference leaves out 0; never with one seed."""
    mean, margin = difference["mean"], difference["margin"]
    return mean is not None and margin is not None and abs(mean) > margin


def statistic(values: Sequence[float | None]) -> Statistic:
    """Mean and sample standard deviation of `values`; None where a shot group is empty."""
    present = [value for value in values if value is not None]
    if not present:
        return {"mean": None, "std": None}
    std = statistics.stdev(present) if len(present) > 1 else 0.0
    return {"mean": round(statistics.fmean(present), 2), "std": round(std, 2)}


def best(comparison: Comparison, metric: str) -> frozenset[str]:
    """The methods whose mean is the best of all; more than one if they are equal. The vision model is none."""
    means = {
        method: m
        for method, metrics in comparison.items()
        if method != LMM and (m := metrics[metric]["mean"]) is not None
    }
    if not means:
        return frozenset()
    top = (min if metric in LOWER_IS_BETTER else max)(means.values())
    return frozenset(method for method, mean in means.items() if mean == top)


def comparison_rows(runs: Mapping[str, Sequence[RunMetrics]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of plots/compare.csv: one a method and metric, with mean, std and the value of each seed."""
    comparison = summarise(runs)
    return [
        {"method": method, "metric": heading}
        | comparison[method][metric]
        | {f"seed_{seed}": getattr(run, metric) for seed, run in zip(seeds, runs[method], strict=True)}
        for method in runs
        for metric, heading in METRICS.items()
    ]


def per_class_rows(accuracies: Mapping[str, Sequence[ClassAccuracy]]) -> list[dict[str, Any]]:
    """Rows of plots/per_class.csv: mean accuracy (percent) over seeds, one a class and method.

    accuracies: method -> the rows of all its seeds.
    """
    rows = []
    for method, records in accuracies.items():
        of_class: dict[int, list[ClassAccuracy]] = defaultdict(list)
        for record in records:
            of_class[record.label].append(record)
        for label in sorted(of_class):
            first = of_class[label][0]
            accuracy = statistic([record.accuracy for record in of_class[label]])["mean"]
            rows.append(
                {"label": label, "class": first.class_name, "train": first.train, "shot": first.shot}
                | {"method": method, "accuracy": accuracy}
            )
    return rows


PER_CLASS_FIELDS = ["label", "class", "train", "shot", "method", "accuracy"]
