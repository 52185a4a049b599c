"""The comparison of methods: mean and standard deviation over seeds, and paired differences (§4.1, Tables 1 to 4).

python -m ltgc.compare        # print again what the stage compare found, and the paper's figures beside it
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.markup import escape
from rich.table import Table

from ltgc import artifacts, params, stage
from ltgc.artifacts import AskMetrics, ClassAccuracy, RunMetrics

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
REFERENCE = "balancemix"  # what the others' differences are to
LMM = "lmm"  # the vision model, asked directly (Table 3)
CONFIDENCE = 0.95
PUBLISHED = Path(__file__).with_name("published.yaml")

# {"mean": ..., "std": ...}; both None where the group has no class, std None where there was one run and no seed
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


def lmm_row(asked: AskMetrics) -> Comparison:
    """The row of the vision model, which was asked once and has no spread; none where it was not asked."""
    if asked.all is None:
        return {}
    return {LMM: {metric: {"mean": getattr(asked, metric, None), "std": None} for metric in METRICS}}


def differences(runs: Mapping[str, Sequence[RunMetrics]], reference: str = REFERENCE) -> Comparison:
    """Each method less `reference`, seed by seed: mean and sample standard deviation in points, 2 decimals.

    Runs of one seed saw the same data in the same order where their methods allow it, so the spread of their
    difference is what the difference of two means should be held against. Empty where `reference` did not run.
    """
    if reference not in runs:
        return {}
    return {
        method: {
            metric: statistic([_less(getattr(a, metric), getattr(b, metric)) for a, b in pairs])
            for metric in METRICS
        }
        for method, seeds in runs.items()
        if method != reference and (pairs := list(zip(seeds, runs[reference], strict=True)))
    }


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def beyond_noise(difference: Statistic, seeds: int) -> bool:
    """Whether the paired t-test's interval of CONFIDENCE leaves out 0."""
    mean, std = difference["mean"], difference["std"]
    if mean is None or std is None or seeds < 2:
        return False
    from scipy.stats import t  # 0.5 s to import, which the report does without

    return bool(abs(mean) > t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * std / seeds**0.5)


def published(name: str) -> list[dict[str, Any]]:
    """The paper's figures on one of its data sets: table, method and the metrics that it prints, in percent."""
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))[name]


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


def spread(value: Statistic) -> str:
    """ "61.3±0.8", "61.3" of one run, or a dash for an empty group."""
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.1f}" + ("" if value["std"] is None else f"±{value['std']:.1f}")


def table(comparison: Comparison, notes: Sequence[str] = ()) -> Table:
    """The comparison for the terminal, best in bold, and what is to be said below it."""
    table = _table("Top-1 accuracy on the test split, % (mean ± std over seeds)", notes)
    for method, metrics in comparison.items():
        cells = [
            f"[bold]{spread(value)}[/]" if method in best(comparison, metric) else spread(value)
            for metric, value in metrics.items()
        ]
        table.add_row(method, *cells)
    return table


def difference_table(compared: Comparison, seeds: int, reference: str = REFERENCE) -> Table:
    """The paired differences, in bold what is beyond noise."""
    table = _table(
        f"Each less {reference}, seed by seed, points (mean ± std of the difference)",
        [f"bold: the {CONFIDENCE:.0%} interval of the paired t-test over {seeds} seeds leaves out 0"],
    )
    for method, metrics in compared.items():
        signed = ["–" if v["mean"] is None else f"{v['mean']:+.1f}±{v['std']:.1f}" for v in metrics.values()]
        cells = [
            f"[bold]{text}[/]" if beyond_noise(v, seeds) else text
            for text, v in zip(signed, metrics.values(), strict=True)
        ]
        table.add_row(method, *cells)
    return table


def published_table(name: str) -> Table:
    """What the paper says, for the eye alone."""
    table = _table(f"Published in the paper for {name}, %: not measured here", [])
    for row in published(name):
        cells = [f"{row[metric]:.1f}" if metric in row else "–" for metric in METRICS]
        table.add_row(f"{row['method']} (Table {row['table']})", *cells)
    return table


def _table(title: str, notes: Sequence[str]) -> Table:
    # Without padding the seven columns fit a terminal of 80.
    table = Table("", title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.caption = "\n".join(notes) or None
    for heading in METRICS.values():
        table.add_column(heading, justify="right", no_wrap=True)
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


def print_tables(skipped: Mapping[str, str] | None = None) -> None:
    """What the stage wrote, on stdout; at full width where that is not a terminal: a log has no 80 columns."""
    section = params.load("compare", "seeds")
    comparison, paired = artifacts.read_json(artifacts.COMPARE), artifacts.read_json(artifacts.PAIRED)
    asked = artifacts.read_record(artifacts.ASK, AskMetrics)
    notes = [f"{method}: {escape(reason)}" for method, reason in (skipped or {}).items()]
    if LMM in comparison:
        notes.append(f"{LMM}: the vision model was asked once, for the class of {asked.images:,} test images")
        if asked.images < asked.of:
            notes[-1] += f" of {asked.of:,}; not to be held against the other rows, which saw all of them"
    tables = [table(comparison, notes)]
    if paired:
        tables.append(difference_table(paired, len(section.seeds)))
    if section.compare.published:
        tables.append(published_table(section.compare.published))
    console = stage.output()
    for number, one in enumerate(tables):
        console.print(*(["\n"] if number else []), one, sep="")


if __name__ == "__main__":
    stage.run(print_tables)
