"""Ablations of the loops: a folder a variant, in which the pipeline's own stages run with some keys changed.

    dvc repro ablations/dvc.yaml     # every variant of ablations/variants.yaml, then the table
    ltgc ablations         # print metrics/ablations.json again as the table

All paths of the pipeline are relative to the working directory. A variant's folder holds links to data and code,
params.yaml with some keys changed, and the files of the pipeline's store: what LTGC asked is not asked again.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ltgc.evaluation.comparison import Statistic, differences, summarise
from ltgc.evaluation.tables import comparison_table, difference_table
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.descriptions import EXISTING
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.artifacts.runs import MODELS, RUN_METRICS, Run, RunMetrics
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.files import Record
from ltgc.pipeline.terminal import output

VARIANTS = Path("ablations/variants.yaml")
RUNS = Path("ablations/runs")
RESULTS = Path("ablations/results")
TABLE = Path("metrics/ablations.json")
METHOD = "balancemix"
LTGC = "ltgc"  # the row of the pipeline itself
# What a variant makes itself; every other folder of the repository is linked.
MADE = {"descriptions", "generated", "store", "models", "predictions", "plots", "metrics", "report", "ablations"}

Changes = dict[str, Any]  # dotted key of params.yaml -> value


class Result(Record):
    """What BalanceMix reached in one variant (ablations/results/<variant>.json)."""

    generated: int  # images in D_g
    runs: list[RunMetrics]  # of each seed


class Row(Record):
    """A variant in metrics/ablations.json, in percent and points; `less_ltgc` is paired by seed."""

    generated: int
    accuracy: dict[str, Statistic]
    less_ltgc: dict[str, Statistic] | None


def variants() -> dict[str, Changes]:
    """name -> what it changes. Raises LTGCError for a file that does not say so."""
    raw = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))
    try:
        return TypeAdapter(dict[str, dict[str, Changes]]).validate_python(raw)["variants"]
    except (ValidationError, KeyError) as error:
        raise LTGCError(f"{VARIANTS}: variants: expected name: {{key of params.yaml: value}}") from error


def build(variant: str, changes: Changes) -> Path:
    """Make or refresh the folder of a variant; returns it. Raises LTGCError for a key that params.yaml lacks."""
    folder, root = RUNS / variant, Path.cwd()
    values = changed(variant, changes)
    for made in (EXISTING, params.PARAMS):
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        link = folder / entry.name
        if entry.is_dir() and entry.name not in MADE and not entry.name.startswith(".") and not link.exists():
            link.symlink_to(entry, target_is_directory=True)
    shutil.copy(EXISTING, folder / EXISTING)
    share_store(STORE, folder / STORE)
    files.write_text(folder / params.PARAMS, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    params.load(path=folder / params.PARAMS)  # a wrong value is an error before anything runs
    return folder


def stages() -> list[list[str]]:
    """What runs in the folder of a variant, one after another: the arguments of `python -m`."""
    loops = [[f"stages.{name}"] for name in ("extend", "templates", "generate", "quality")]
    return [*loops, ["stages.train", METHOD], ["stages.evaluate", METHOD]]


def changed(variant: str, changes: Changes) -> dict[str, Any]:
    """params.yaml with the keys of a variant changed."""
    values = yaml.safe_load(params.PARAMS.read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *sections, last = dotted.split(".")
        place = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise LTGCError(f"{VARIANTS}: {variant}: params.yaml has no key {dotted!r}")
        place[last] = value
    return values


def share_store(store: Path, own: Path) -> None:
    """Lay the files of `store` into `own` under other names.

    A Store finds a reply in any of its files and appends to none but its classes': links are never written to.
    """
    for file in sorted([*store.glob("*/*.jsonl"), *store.glob("*/*.tar")]):
        link = own / file.parent.name / f"{LTGC}.{file.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            os.link(file, link)
        except OSError:  # another file system
            shutil.copy(file, link)


def result(seeds: Sequence[int]) -> Result:
    """What BalanceMix reached in the working directory."""
    runs = [files.read_record(RUN_METRICS / METHOD / f"{seed}.json", RunMetrics) for seed in seeds]
    run = files.read_record(MODELS / METHOD / str(seeds[0]) / "run.json", Run)
    return Result(generated=run.generated, runs=runs)


def rows(results: Mapping[str, Result]) -> dict[str, Row]:
    """The table: LTGC, then each variant with its difference to LTGC. A run that was skipped has no figures."""
    runs = {name: found.runs for name, found in results.items()}
    accuracy, less = summarise(runs), differences(runs, LTGC)
    return {
        name: Row(generated=found.generated, accuracy=accuracy[name], less_ltgc=less.get(name))
        for name, found in results.items()
    }


def print_table() -> None:
    read = {name: Row.model_validate(row) for name, row in files.read_json(TABLE).items()}
    drawn = ", ".join(f"{name} {row.generated:,}" for name, row in read.items())
    console = output()
    console.print(
        comparison_table({name: row.accuracy for name, row in read.items()}, [f"images in D_g: {drawn}"]), "\n"
    )
    less = {name: row.less_ltgc for name, row in read.items() if row.less_ltgc}
    console.print(difference_table(less, LTGC, "seeds alone"))
