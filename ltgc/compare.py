"""The comparison of methods: mean and standard deviation over seeds (§4.1, Tables 3 and 4).

python -m ltgc.compare        # print metrics/compare.json again as a table
"""

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ltgc import artifacts, stage
from ltgc.artifacts import ClassAccuracy, RunMetrics

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

Statistic = dict[str, float | None]  # {"mean": ..., "std": ...}; both None where the group has no class
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
        runs = [
            artifacts.read_record(artifacts.RUN_METRICS / method / f"{seed}.json", RunMetrics) for seed in seeds
        ]
        if reasons := [run.skipped for run in runs if run.skipped]:
            results.skipped[method] = reasons[0]
            continue
        results.runs[method] = runs
        results.accuracies[method] = [
            row
            for seed in seeds
            for row in artifacts.read_csv(artifacts.PER_CLASS / method / f"{seed}.csv", ClassAccuracy)
        ]
    return results


def summarise(runs: Mapping[str, Sequence[RunMetrics]]) -> Comparison:
    """Mean and sample standard deviation (0 for one seed), in percent with 2 decimals.

    runs: method -> the metrics of each seed. The result is what metrics/compare.json holds.
    """
    return {
        method: {metric: statistic([getattr(run, metric) for run in seeds]) for metric in METRICS}
        for method, seeds in runs.items()
    }


def statistic(values: Sequence[float | None]) -> Statistic:
    """Mean and sample standard deviation of `values`; None where a shot group is empty."""
    present = [value for value in values if value is not None]
    if not present:
        return {"mean": None, "std": None}
    std = statistics.stdev(present) if len(present) > 1 else 0.0
    return {"mean": round(statistics.fmean(present), 2), "std": round(std, 2)}


def best(comparison: Comparison, metric: str) -> frozenset[str]:
    """The methods whose mean is the best of all; more than one if they are equal."""
    means = {method: m for method, metrics in comparison.items() if (m := metrics[metric]["mean"]) is not None}
    if not means:
        return frozenset()
    top = (min if metric in LOWER_IS_BETTER else max)(means.values())
    return frozenset(method for method, mean in means.items() if mean == top)


def spread(value: Statistic) -> str:
    """ "61.3±0.8", or a dash for an empty group."""
    return "–" if value["mean"] is None else f"{value['mean']:.1f}±{value['std']:.1f}"


def table(comparison: Comparison, skipped: Mapping[str, str] | None = None) -> Table:
    """The comparison for the terminal, best in bold; below it the methods that were skipped, and why."""
    reasons = [f"{method}: {escape(reason)}" for method, reason in (skipped or {}).items()]
    # Without padding the seven columns fit a terminal of 80.
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False, padding=0, caption="\n".join(reasons) or None)
    table.title = "Top-1 accuracy on the test split, % (mean ± std over seeds)"
    for heading in METRICS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for method, metrics in comparison.items():
        cells = [
            f"[bold]{spread(value)}[/]" if method in best(comparison, metric) else spread(value)
            for metric, value in metrics.items()
        ]
        table.add_row(method, *cells)
    return table


def plot_rows(runs: Mapping[str, Sequence[RunMetrics]], seeds: Sequence[int]) -> list[dict[str, Any]]:
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


def print_table(table: Table) -> None:
    """Print on stdout, at full width where that is not a terminal: a log has no 80 columns to keep to."""
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    comparison = artifacts.read_json(artifacts.COMPARE)
    print_table(table(comparison))


if __name__ == "__main__":
    stage.run(main)
