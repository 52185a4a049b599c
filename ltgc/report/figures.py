"""The figures: inline SVGs that take the page's colours, and the paper's Fig. 6 and Fig. 7 as PNGs."""

import io
import math
import re
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ltgc.data import images
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.report.answers import Pair
from ltgc.report.style import (
    METHOD_STYLES,
    OTHER_STYLE,
    SHOT_COLOURS,
    VERDICT_COLOURS,
    method_name,
)
from ltgc.report.thumbnails import SIDE

# matplotlib writes literal colours; this one becomes the page's text colour, light or dark.
INK = "#010203"
LABELLED = 40  # more classes than these have no room for their names under a figure
BINS = 48
FIG6_ROWS, FIG6_IMAGES = 6, 4  # classes, and images of each kind a class
FIG7_COLUMNS = 8
BARE = {"Software": None}  # no version in the PNG: the same pictures are the same bytes


def counts(classes: Sequence[ClassRecord]) -> Markup:
    """Training images of each class, log scale, coloured by shot group, as SVG."""
    order = by_size(classes)
    labelled = len(order) <= LABELLED
    figure = Figure(figsize=(10, 4.4 if labelled else 2.8), layout="constrained")
    axes = figure.subplots()
    for shot, colour in SHOT_COLOURS.items():
        own = [rank for rank, c in enumerate(order) if c.shot == shot]
        if own:
            axes.bar(
                own, [order[rank].train for rank in own], width=0.85 if labelled else 1, color=colour, label=shot
            )
    axes.set(yscale="log", ylabel="training images", xlim=(-0.5, len(order) - 0.5))
    axes.set_ylim(bottom=max(0.5, min(c.train for c in order) / 2))  # the smallest class shows a bar, too
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    for bound in (20, 100):
        axes.axhline(bound, color=INK, lw=0.8, dashes=(4, 3), alpha=0.6)
    _name_classes(axes, order)
    axes.legend(frameon=False, loc="upper right", ncols=3, fontsize="small")
    return _svg(figure, "Training images of each class")


def accuracy(
    classes: Sequence[ClassRecord], accuracies: Mapping[str, Mapping[int, float]], pair: Pair | None
) -> Markup:
    """Test accuracy of each class and method, classes by their training images, as SVG.

    accuracies: method -> label -> percent. Many classes have no room for names: then the axis is their count, log.
    """
    order = by_size(classes)
    labelled = len(order) <= LABELLED
    places = list(range(len(order))) if labelled else [c.train for c in order]
    figure = Figure(figsize=(10, 5.2 if labelled else 4), layout="constrained")
    axes = figure.subplots()
    if labelled:
        for shot, colour in SHOT_COLOURS.items():
            own = [rank for rank, c in enumerate(order) if c.shot == shot]
            if own:
                axes.axvspan(own[0] - 0.5, own[-1] + 0.5, color=colour, alpha=0.08, lw=0)
        if pair and set(pair) <= set(accuracies):
            for rank, c in enumerate(order):
                ends = [accuracies[method].get(c.label, math.nan) for method in pair]
                axes.plot([rank, rank], ends, color=INK, lw=1, alpha=0.5, zorder=2)
        axes.set_xlim(-0.5, len(order) - 0.5)
    else:
        axes.set(xscale="log", xlabel="training images of the class")
        axes.invert_xaxis()
    for method, of_class in accuracies.items():
        axes.scatter(
            places,
            [of_class.get(c.label, math.nan) for c in order],
            s=32 if labelled else 6,
            label=method_name(method),
            rasterized=not labelled,  # thousands of points would be megabytes of SVG
            **METHOD_STYLES.get(method, OTHER_STYLE),
        )
    axes.set(ylabel="test accuracy, %", ylim=(-3, 103))
    if labelled:
        _name_classes(axes, order)
    figure.legend(frameon=False, loc="outside upper left", ncols=6, fontsize="small", labelcolor=INK)
    return _svg(figure, "Test accuracy of each class by method")


def scores(rows: Iterable[Mapping[str, str]]) -> Markup | None:
    """Distributions of the filter's scores around the threshold, as SVG; None where nothing was scored.

    rows: plots/scores.csv. One threshold for all: the scores themselves; a threshold a class: the score less it.
    """
    thresholds: set[float] = set()
    scored: dict[str, array[float]] = {name: array("d") for name in VERDICT_COLOURS}
    margins: dict[str, array[float]] = {name: array("d") for name in VERDICT_COLOURS}
    for row in rows:
        thresholds.add(float(row["threshold"]))
        name = row["verdict"] if row["verdict"] in scored else "turned down"
        scored[name].append(float(row["score"]))
        margins[name].append(float(row["margin"]))
    if not thresholds:
        return None
    one = len(thresholds) == 1
    of_verdict = scored if one else margins
    everything = [edge for values in of_verdict.values() if values for edge in (min(values), max(values))]
    edges = np.linspace(min(everything), max(max(everything), min(everything) + 1e-6), BINS + 1)
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    for name, values in of_verdict.items():
        if values:
            # Shares, not counts: there may be ten times as many generated images as real ones.
            weights = np.full(len(values), 100 / len(values))
            axes.hist(
                np.asarray(values),
                list(edges),
                weights=weights,
                color=VERDICT_COLOURS[name],
                alpha=0.55,
                label=f"{name} ({len(values):,})",
            )
    mark = thresholds.pop() if one else 0.0
    axes.axvline(mark, color=INK, lw=1.2)
    axes.annotate(
        f" threshold {mark:.3g} " if one else " threshold ",
        (mark, 1),
        xycoords=("data", "axes fraction"),
        ha="right" if mark > sum(axes.get_xlim()) / 2 else "left",  # where fewer bars are
        va="top",
        color=INK,
        fontsize="small",
    )
    axes.set(xlabel="score" if one else "score less the threshold of the class", ylabel="% of its kind")
    figure.legend(frameon=False, loc="outside upper left", ncols=3, fontsize="small")
    return _svg(figure, "Distributions of the filter's scores around the threshold")


def fig6(rows: Sequence[tuple[ClassRecord, Sequence[images.ImageFile], Sequence[Attempt]]]) -> bytes:
    """The paper's Fig. 6 as PNG: a row a tail class, original images on the left, generated ones on the right.

    The paper has images of the bare template on the left; nobody draws those here (ablations/ can), and what a
    reader compares with is what the class had.
    """
    if not rows:
        return _sentence("No image was generated.")
    rows = rows[:FIG6_ROWS]
    figure = Figure(figsize=(2 * FIG6_IMAGES + 1.6, 1.15 * len(rows) + 0.4), layout="constrained")
    widths = [1.6, *[1.0] * 2 * FIG6_IMAGES]
    grid = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (c, originals, generated) in zip(grid, rows, strict=True):
        label = f"{_short(c.name)}\n{c.train} training images"
        row[0].text(0, 0.5, label, va="center", fontsize=8, wrap=True, parse_math=False)
        for axes, path in zip(row[1 : FIG6_IMAGES + 1], originals, strict=False):
            axes.imshow(images.required(path, SIDE))
        for axes, attempt in zip(row[FIG6_IMAGES + 1 :], generated, strict=False):
            axes.imshow(images.required(attempt.image or "", SIDE))
    grid[0][1].set_title("original", loc="left", fontsize=9)
    grid[0][FIG6_IMAGES + 1].set_title("generated", loc="left", fontsize=9)
    return _png(figure)


def fig7(chains: Sequence[Sequence[Attempt]]) -> bytes:
    """The paper's Fig. 7 as PNG: above, images that CLIP turned down; below, what the refined description gave."""
    if not chains:
        return _sentence("No image was accepted after refinement.")
    chains = chains[:FIG7_COLUMNS]
    figure = Figure(figsize=(1.5 * len(chains) + 0.6, 3.9), layout="constrained")
    grid = figure.subplots(2, len(chains), squeeze=False)
    for column, chain in enumerate(chains):
        for axes, attempt in zip(grid[:, column], (chain[0], chain[-1]), strict=True):
            axes.imshow(images.required(attempt.image or "", SIDE))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"S = {attempt.score:.3f}", fontsize=8)
        grid[0][column].set_title(_short(chain[0].class_name, 18), fontsize=8, parse_math=False)
    grid[0][0].set_ylabel("turned down", fontsize=9)
    grid[1][0].set_ylabel("after refinement", fontsize=9)
    return _png(figure)


def by_size(classes: Sequence[ClassRecord]) -> list[ClassRecord]:
    """Classes with the most training images first."""
    return sorted(classes, key=lambda c: (-c.train, c.label))


def _name_classes(axes: Axes, order: Sequence[ClassRecord]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    if len(order) > LABELLED:
        axes.set(xlabel="classes, by number of training images", xticks=[])
        return
    names = [f"{_short(c.name)}, {c.train}" for c in order]
    # parse_math: a class may be called "$x$".
    axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _sentence(text: str) -> bytes:
    figure = Figure(figsize=(5, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(out, format="png", dpi=120, metadata=BARE)
    return out.getvalue()


def _svg(figure: Figure, label: str) -> Markup:
    """`figure` as an inline SVG that takes the page's text colour, the same bytes for the same figure."""
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, which="both")
        axes.set_facecolor("none")
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        if legend := axes.get_legend():
            for text in legend.get_texts():
                text.set_color(INK)
    out = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks are drawn by the browser, which has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Two figures on one page: ids such as "axes_1" must not meet.
    prefix = re.sub(r"\W+", "-", label.lower())
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return Markup(re.sub(r"^<svg ", f'<svg role="img" aria-label="{label}" ', svg))
