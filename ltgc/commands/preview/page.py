"""The page of `ltgc preview`, made in its folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ltgc.clients.costs import Cost, stage_cost
from ltgc.data.roots import image_root
from ltgc.evaluation import loop_metrics
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.by_class import ByClass
from ltgc.pipeline.params import PARAMS, Params
from ltgc.report import fold_outs, selection, thumbnails
from ltgc.report import page as report
from ltgc.report.inputs import Made
from ltgc.report.thumbnails import Thumbnails

HERE = Path(__file__).parent
# Scorers that hold an image against the texts of all classes.
COMPARING = ("contrast", "probability")


def page(settings: Params, classes: Sequence[ClassRecord], chosen: Sequence[ClassRecord]) -> tuple[str, str]:
    """The HTML, and a line for the terminal."""
    made = Made(
        classes=list(chosen),
        photos=selection.originals(files.each_csv(MANIFEST, ImageRecord), image_root(settings.data)),
        existing=ByClass(EXISTING, ExistingDescription),
        extended=ByClass(EXTENDED, ExtendedDescription),
        templates=files.read_jsonl(TEMPLATES, ClassTemplate),
        attempts=ByClass(ATTEMPTS, Attempt),
        class_quality=[],
    )
    cost = costs(settings, made.attempts)
    whole = scaled(cost, shares(classes, chosen, settings.extend.target))
    entries = fold_outs.fold_outs(made, Thumbnails(), thumbnails.BUDGET)
    drawn = loop_metrics.generate(made.attempts, [])
    html = (
        report.environment(HERE)
        .get_template("preview.html.j2")
        .render(
            settings=settings,
            chosen=chosen,
            others=len(classes) - len(chosen) if settings.filter.scorer in COMPARING else 0,
            tail=sum(c.train < settings.extend.target for c in classes),
            entries=entries,
            gains=dict.fromkeys(c.label for c in classes),
            descriptions_shown=fold_outs.DESCRIPTIONS,
            drawn=drawn,
            cost=_rows(cost),
            whole=_rows(whole),
            params=PARAMS.read_text(encoding="utf-8"),
            style=report.asset("report.css"),
        )
    )
    return html, f"these classes: {_usd(cost)}; the whole at that rate: {_usd(whole)}"


def costs(settings: Params, attempts: Iterable[Attempt]) -> dict[str, Cost]:
    """Stage -> what these classes need, paid now or before."""
    drawn = {"generate": {"drawn": loop_metrics.generate(attempts, [])["drawn"]}}
    stages = ("describe", "extend", "templates", "generate")
    counted = {stage: files.read_json(CALLS / f"{stage}.json") | drawn.get(stage, {}) for stage in stages}
    return {stage: stage_cost(settings, stage, calls) for stage, calls in counted.items()}


def shares(classes: Sequence[ClassRecord], chosen: Sequence[ClassRecord], target: int) -> dict[str, float]:
    """Stage -> how many times the whole is what was tried.

    By photos of tail classes, by descriptions that they lack, and templates, which every class gets, by classes.
    """
    tail = [c for c in classes if c.train < target]
    lacking = sum(target - c.train for c in tail) / sum(target - c.train for c in chosen)
    photos = sum(c.train for c in tail) / sum(c.train for c in chosen)
    return {
        "describe": photos,
        "extend": lacking,
        "templates": len(classes) / len(chosen),
        "generate": lacking,
    }


def scaled(cost: Mapping[str, Cost], times: Mapping[str, float]) -> dict[str, Cost]:
    return {stage: _times(of, times[stage]) for stage, of in cost.items()}


def _times(cost: Cost, times: float) -> Cost:
    usd = None if cost.usd is None else cost.usd * times
    return Cost(**{name: times * n for name, n in asdict(replace(cost, usd=0)).items()} | {"usd": usd})


def _rows(cost: Mapping[str, Cost]) -> dict[str, Cost]:
    return {**cost, "total": sum(cost.values(), Cost())}


def _usd(cost: Mapping[str, Cost]) -> str:
    usd = sum(cost.values(), Cost()).usd
    return "a model has no price (`prices` in params.yaml)" if usd is None else f"{usd:,.2f} USD"
