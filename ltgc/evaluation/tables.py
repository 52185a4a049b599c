"""The comparison as tables for the terminal, and the paper's figures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.markup import escape
from rich.table import Table

from ltgc.evaluation import uncertainty
from ltgc.evaluation.comparison import LMM, METRICS, Comparison, Statistic, best, beyond_noise, control
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.results import COMPARE, PAIRED
from ltgc.pipeline.terminal import output

PUBLISHED = Path(__file__).with_name("published.yaml")


def published(name: str) -> list[dict[str, Any]]:
    """The paper's figures on one of its data sets: table, method and the metrics that it prints, in percent."""
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))[name]


def spread(value: Statistic) -> str:
    """ "61.3±0.8", "61.3" of one run, or a dash for an empty group."""
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.1f}" + ("" if value["std"] is None else f"±{value['std']:.1f}")


def comparison_table(comparison: Comparison, notes: Sequence[str] = ()) -> Table:
    """The comparison for the terminal, best in bold, and what is to be said below it."""
    table = _table("Top-1 accuracy on the test split, % (mean ± std over seeds)", notes)
    for method, metrics in comparison.items():
        cells = [
            f"[bold]{spread(value)}[/]" if method in best(comparison, metric) else spread(value)
            for metric, value in metrics.items()
        ]
        table.add_row(method, *cells)
    return table


def difference_table(compared: Comparison, reference: str, what: str) -> Table:
    """The differences to `reference` with their margins, in bold what is beyond noise, and what could be seen.

    what: what the margins cover, for the reader.
    """
    confidence = f"{uncertainty.CONFIDENCE:.0%}"
    notes = [f"±: half of the {confidence} interval, over {what}; bold: it leaves out 0"]
    if power := detectable(compared):
        notes.append(power)
    table = _table(f"Each less {reference}, points", notes)
    for method, metrics in compared.items():
        cells = [f"[bold]{signed(v)}[/]" if beyond_noise(v) else signed(v) for v in metrics.values()]
        table.add_row(method, *cells)
    return table


def signed(difference: Statistic) -> str:
    """ "+1.8±0.7", or a dash for an empty group."""
    if difference["mean"] is None:
        return "–"
    margin = difference["margin"]
    return f"{difference['mean']:+.1f}" + ("" if margin is None else f"±{margin:.1f}")


def detectable(compared: Comparison) -> str | None:
    """How large a difference has to be to be seen: "no difference" is said of nothing smaller."""
    found = []
    for metric in ("all", "few"):
        margins = [m for values in compared.values() if (m := values[metric]["margin"]) is not None]
        if margins:
            found.append(f"{uncertainty.detectable(margins):.1f} ({METRICS[metric]})")
    return f"found {uncertainty.POWER:.0%} of the time: true differences of {', '.join(found)}" if found else None


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


def print_tables(skipped: Mapping[str, str] | None = None) -> None:
    """What the stage wrote, on stdout; at full width where that is not a terminal: a log has no 80 columns."""
    section = params.load("compare")
    comparison, paired = files.read_json(COMPARE), files.read_json(PAIRED)
    asked = files.read_record(ASK, AskMetrics)
    notes = [f"{method}: {escape(reason)}" for method, reason in (skipped or {}).items()]
    if LMM in comparison:
        notes.append(f"{LMM}: the vision model was asked once, for the class of {asked.images:,} test images")
        if asked.images < asked.of:
            notes[-1] += f" of {asked.of:,}; not to be held against the other rows, which saw all of them"
    tables = []
    if paired and (reference := control(comparison)):
        tables.append(difference_table(paired, reference, "seeds and test images"))
        notes.append(f"{reference} is the control: the best over all of the methods without drawings")
    if section.compare.published:
        tables.append(published_table(section.compare.published))
    tables.insert(0, comparison_table(comparison, notes))
    console = output()
    for number, one in enumerate(tables):
        console.print(*(["\n"] if number else []), one, sep="")
