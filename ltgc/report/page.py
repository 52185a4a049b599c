"""The report: one self-contained HTML page of tables, figures and thumbnails, without script or request.

Class names and model replies are untrusted: Jinja escapes every one of them, and the page's own
Content-Security-Policy forbids scripts and requests should something slip through.
"""

import base64
import difflib
import io
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ltgc import images
from ltgc.artifacts import (
    Attempt,
    ClassAccuracy,
    ClassRecord,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
    ImageRecord,
)
from ltgc.compare import LOWER_IS_BETTER, METRICS, Comparison, Results, best, statistic
from ltgc.errors import LTGCError
from ltgc.loops import refinement_chains

METHODS = {
    "clip_zero_shot": "CLIP zero-shot",
    "clip_finetune": "CLIP fine-tune",
    "no_balancemix": "No BalanceMix",
    "balanced_sample": "Balanced sampling",
    "mixup": "Mixup",
    "balancemix": "BalanceMix",
}
BASELINE = "clip_finetune"

# What keeps the page below 15 MB whatever the data set: 1,000 classes with 300 texts each would be 45 MB.
CLASSES_SHOWN = 60  # in galleries and fold-outs, those with the fewest training images
GALLERY = 6  # originals, and generated images, of a class
CHAINS_SHOWN = 30  # refinements of a class
DESCRIPTIONS_SHOWN = 100  # of a class and list
THUMBNAIL = 128  # pixels, longer side
THUMBNAIL_BUDGET = 8_000_000  # bytes of data URIs
LABELLED = 40  # more classes than these have no room for their names under a figure


@dataclass(frozen=True)
class Inputs:
    """Everything the page shows, as the stages wrote it."""

    params: str  # params.yaml, verbatim
    source: str
    seeds: list[int]
    image_root: Path
    classes: list[ClassRecord]
    manifest: list[ImageRecord]
    existing: list[ExistingDescription]
    extended: list[ExtendedDescription]
    templates: list[ClassTemplate]
    attempts: list[Attempt]
    comparison: Comparison
    results: Results
    loops: Mapping[str, Any]


def page(inputs: Inputs) -> str:
    """The HTML of the report. Raises LTGCError naming an image that is not there or cannot be read."""
    environment = Environment(
        loader=PackageLoader("ltgc"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": "{:,}".format, "words": lambda reason: reason.replace("_", " ")}
    thumbnails = Thumbnails()
    shown = _classes_shown(inputs)
    accuracy = _mean_accuracy(inputs.results.accuracies)
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        metrics=METRICS,
        names=METHODS,
        baseline=BASELINE,
        rows=comparison_rows(inputs.comparison),
        verdict=verdict(inputs.comparison),
        shots=_shot_rows(inputs.classes),
        accuracy=accuracy,
        classes_figure=classes_figure(inputs.classes, accuracy),
        steps=flow(inputs.loops),
        chains=_chains(inputs, shown, thumbnails),
        turned_down=sum(_turned_down(chain) for chain in refinement_chains(inputs.attempts)),
        gallery=_gallery(inputs, shown, thumbnails),
        descriptions=_descriptions(inputs, shown),
        classes_left_out=_classes_with_descriptions(inputs) - len(shown),
        thumbnails=thumbnails,
    )


# --- the comparison -------------------------------------------------------------------------------------


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a method: its name and a cell a metric, with the difference to CLIP fine-tune in points."""
    rows = []
    for method, metrics in comparison.items():
        cells = []
        for metric, value in metrics.items():
            base = comparison.get(BASELINE, metrics)[metric]["mean"]
            mean = value["mean"]
            difference = None if method == BASELINE or mean is None or base is None else mean - base
            if BASELINE not in comparison:
                difference = None
            better = difference is not None and (difference < 0) == (metric in LOWER_IS_BETTER)
            cells.append(
                value | {"best": method in best(comparison, metric), "difference": difference, "better": better}
            )
        rows.append({"method": method, "cells": cells})
    return rows


def verdict(comparison: Comparison) -> list[dict[str, Any]]:
    """BalanceMix against CLIP fine-tune on few and all, the claim of the paper: a sentence each; [] if not run."""
    if not {"balancemix", BASELINE} <= set(comparison):
        return []
    sentences = []
    for metric, words in (("few", "few-shot classes"), ("all", "all test images")):
        ours, base = comparison["balancemix"][metric], comparison[BASELINE][metric]
        if ours["mean"] is None or base["mean"] is None:
            continue
        difference = ours["mean"] - base["mean"]
        noise = (ours["std"] or 0) + (base["std"] or 0)
        sentences.append(
            {
                "words": words,
                "ours": ours,
                "base": base,
                "difference": difference,
                "beyond_noise": abs(difference) > noise,
            }
        )
    return sentences


# --- figures --------------------------------------------------------------------------------------------

# matplotlib writes literal colours; this one becomes the page's text colour, light or dark.
INK = "#010203"
SHOT_COLOURS = {"many": "#4c8bf5", "medium": "#8e6bd8", "few": "#e0663f"}
PAIR = ("clip_finetune", "balancemix")  # drawn in colour and joined; the others stay in the background
METHOD_STYLES: dict[str, dict[str, Any]] = {
    "clip_zero_shot": {"color": "#9aa0a6", "marker": "x"},
    "clip_finetune": {"color": "#4c8bf5", "marker": "o", "zorder": 3},
    "no_balancemix": {"color": "#9aa0a6", "marker": "+"},
    "balanced_sample": {"color": "#9aa0a6", "marker": "_"},
    "mixup": {"color": "#9aa0a6", "marker": "|"},
    "balancemix": {"color": "#e0663f", "marker": "D", "zorder": 4},
}


def classes_figure(classes: Sequence[ClassRecord], accuracy: Mapping[str, Mapping[int, float]]) -> Markup:
    """Training images (log scale, coloured by shot group) above test accuracy, classes by size, as inline SVG."""
    order = sorted(classes, key=lambda c: (-c.train, c.label))
    ranks = range(len(order))
    labelled = len(order) <= LABELLED
    figure = Figure(figsize=(10, 6.6 if labelled else 5.6), layout="constrained")
    counts, top1 = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    for shot, colour in SHOT_COLOURS.items():
        own = [rank for rank in ranks if order[rank].shot == shot]
        if own:
            counts.bar(
                own, [order[rank].train for rank in own], width=0.85 if labelled else 1, color=colour, label=shot
            )
            for axes in (counts, top1):
                axes.axvspan(own[0] - 0.5, own[-1] + 0.5, color=colour, alpha=0.07, lw=0)
    counts.set(yscale="log", ylabel="training images", xlim=(-0.5, len(order) - 0.5))
    counts.set_ylim(bottom=max(0.5, min(c.train for c in order) / 2))  # the smallest class shows a bar, too
    counts.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    counts.yaxis.set_major_formatter("{x:g}")
    counts.yaxis.set_minor_locator(NullLocator())
    counts.axhline(100, color=INK, lw=0.6, ls=":")
    counts.axhline(20, color=INK, lw=0.6, ls=":")
    if labelled and set(PAIR) <= set(accuracy):
        for rank in ranks:
            ends = [accuracy[method].get(order[rank].label, math.nan) for method in PAIR]
            top1.plot([rank, rank], ends, color=INK, lw=1, alpha=0.5, zorder=2)
    for method, of_class in accuracy.items():
        top1.scatter(
            ranks,
            [of_class.get(c.label, math.nan) for c in order],
            s=30 if labelled else 8,
            label=METHODS.get(method, method),
            rasterized=not labelled,  # thousands of points would be megabytes of SVG
            **METHOD_STYLES.get(method, {"color": "#9aa0a6", "marker": "."}),
        )
    top1.set(ylabel="test accuracy, %", ylim=(-3, 103))
    if labelled:
        names = [c.name if len(c.name) <= 24 else c.name[:23] + "…" for c in order]
        # parse_math: a class may be called "$x$".
        top1.set_xticks(ranks, names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    else:
        top1.set_xlabel("classes, by number of training images")
    for axes in (counts, top1):
        axes.spines[["top", "right"]].set_visible(False)
    counts.legend(frameon=False, loc="upper right", ncols=3, fontsize="small")
    if accuracy:
        top1.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=6, fontsize="small")
    return _svg(figure, "training images and test accuracy of each class")


def _svg(figure: Figure, label: str) -> Markup:
    """`figure` as an inline SVG that takes the page's text colour, the same bytes for the same figure."""
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}
    for axes in figure.axes:
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
    return Markup(re.sub(r"^<svg ", f'<svg role="img" aria-label="{label}" ', svg))


# --- thumbnails -----------------------------------------------------------------------------------------


@dataclass
class Thumbnails:
    """Small WebP copies of images as data URIs, until the budget is used up."""

    budget: int = THUMBNAIL_BUDGET
    left_out: int = 0
    made: dict[Path, str] = field(default_factory=dict)

    def uri(self, path: Path) -> str | None:
        """The data URI of the image at `path`, or None (and counted) when the budget is used up."""
        if path in self.made:
            return self.made[path]
        if self.budget <= 0:
            self.left_out += 1
            return None
        try:
            image = images.load(path)
        except FileNotFoundError as error:
            raise LTGCError(f"{path}: not there; run `dvc repro` to make it") from error
        except images.BadImage as error:
            raise LTGCError(f"{path}: {error}; run `dvc repro` to make it again") from error
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=80)
        uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
        self.budget -= len(uri)
        self.made[path] = uri
        return uri


# --- what the sections show -----------------------------------------------------------------------------


def flow(loops: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From images asked about to images used: each step's total, and its parts in order, the kept ones first."""
    describe, extend, generate = loops["describe"], loops["extend"], loops["generate"]
    steps = [
        _step("Existing descriptions", "images shown to the vision model", describe, [("kept", describe["kept"])]),
        _step("Extended descriptions", "received from the LLM", extend, [("kept", extend["kept"])]),
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
    return steps


def _step(title: str, what: str, loop: Mapping[str, Any], kept: list[tuple[str, int]]) -> dict[str, Any]:
    parts = [{"name": name, "count": count, "kind": "kept"} for name, count in kept] + _dropped(loop["dropped"])
    return {"title": title, "what": what, "total": sum(part["count"] for part in parts), "parts": parts}


def _dropped(reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "count": count, "kind": "dropped"} for name, count in reasons.items()]


def _shot_rows(classes: Sequence[ClassRecord]) -> list[dict[str, Any]]:
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


def _mean_accuracy(accuracies: Mapping[str, Sequence[ClassAccuracy]]) -> dict[str, dict[int, float]]:
    """method -> label -> mean accuracy over seeds, percent."""
    means: dict[str, dict[int, float]] = {}
    for method, rows in accuracies.items():
        of_class: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            of_class[row.label].append(row.accuracy)
        means[method] = {label: statistic(values)["mean"] or 0.0 for label, values in of_class.items()}
    return means


def _classes_with_descriptions(inputs: Inputs) -> int:
    return len({d.label for d in inputs.existing} | {d.label for d in inputs.extended})


def _classes_shown(inputs: Inputs) -> list[ClassRecord]:
    """The classes that descriptions were written for, fewest training images first, at most CLASSES_SHOWN."""
    labels = {d.label for d in inputs.existing} | {d.label for d in inputs.extended}
    tail = sorted((c for c in inputs.classes if c.label in labels), key=lambda c: (c.train, c.label))
    return tail[:CLASSES_SHOWN]


def _gallery(inputs: Inputs, shown: Sequence[ClassRecord], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Original and generated images of each class that has generated ones (Fig. 6), spread over what there is."""
    originals: dict[int, list[Path]] = defaultdict(list)
    generated: dict[int, list[Attempt]] = defaultdict(list)
    for image in inputs.manifest:
        if image.split == "train":
            originals[image.label].append(inputs.image_root / image.path)
    for attempt in inputs.attempts:
        if attempt.verdict == "accepted" and attempt.image is not None:
            generated[attempt.label].append(attempt)
    return [
        {
            "c": c,
            "total": len(generated[c.label]),
            "originals": [thumbnails.uri(path) for path in spaced(originals[c.label], GALLERY)],
            "generated": [
                {"uri": thumbnails.uri(Path(a.image or "")), "prompt": a.prompt}
                for a in spaced(generated[c.label], GALLERY)
            ],
        }
        for c in shown
        if generated[c.label]
    ]


def spaced(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of `values`, evenly spaced: the first ones alone would show one scene."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def _below(attempt: Attempt) -> bool:
    return attempt.score is not None and attempt.threshold is not None and attempt.score < attempt.threshold


def _turned_down(chain: Sequence[Attempt]) -> bool:
    """Whether CLIP scored a drawing below the threshold, or the image model refused and the text was refined."""
    return len(chain) > 1 or any(_below(attempt) for attempt in chain)


def _chains(inputs: Inputs, shown: Sequence[ClassRecord], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """The refinement chains of each class: every drawing that was turned down, and what followed (Fig. 7)."""
    of_class: dict[int, list[list[Attempt]]] = defaultdict(list)
    for chain in refinement_chains(inputs.attempts):
        if _turned_down(chain):
            of_class[chain[0].label].append(chain)
    return [
        {
            "c": c,
            "mended": sum(chain[-1].verdict == "accepted" for chain in of_class[c.label]),
            "total": len(of_class[c.label]),
            "chains": [_chain(chain, thumbnails) for chain in of_class[c.label][:CHAINS_SHOWN]],
        }
        for c in shown
        if of_class[c.label]
    ]


def _chain(chain: Sequence[Attempt], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Each attempt with its image, and the words that are new against the description it refines."""
    steps = []
    before: str | None = None
    for attempt in chain:
        uri = None if attempt.image is None else thumbnails.uri(Path(attempt.image))
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


def _descriptions(inputs: Inputs, shown: Sequence[ClassRecord]) -> list[dict[str, Any]]:
    """Template and descriptions of each class, kept and dropped."""
    existing: dict[int, list[ExistingDescription]] = defaultdict(list)
    extended: dict[int, list[ExtendedDescription]] = defaultdict(list)
    for d in inputs.existing:
        existing[d.label].append(d)
    for e in inputs.extended:
        extended[e.label].append(e)
    template = {t.label: t for t in inputs.templates}
    return [
        {
            "c": c,
            "template": template.get(c.label),
            "existing": existing[c.label],
            "extended": sorted(extended[c.label], key=lambda e: e.index),
            "shown": DESCRIPTIONS_SHOWN,
        }
        for c in shown
    ]
