"""Ablations of the loops and of our recipe: the pipeline's own stages in a folder a variant, some keys changed.

    dvc repro ablations/dvc.yaml     # every variant of ablations/variants.yaml, then the table; every comparison
    ltgc ablations         # print metrics/ablations.json again as the table

A variant trains one method. A comparison trains all methods from all seeds, as the pipeline does.

All paths of the pipeline are relative to the working directory. A variant's folder holds links to data and code,
and params.yaml with some keys changed. What LTGC asked is in the pool, and is not asked again.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ltgc.data.truth import Truth
from ltgc.evaluation.comparison import Comparison, Statistic, differences, summarise
from ltgc.evaluation.loop_metrics import checks, filter_quality
from ltgc.evaluation.tables import comparison_table, difference_table
from ltgc.pipeline import files, params, side_folder, stage
from ltgc.pipeline.artifacts.asking import ASK
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.results import COMPARE, PAIRED
from ltgc.pipeline.artifacts.runs import CURVES, MODELS, RUN_METRICS, Run, RunMetrics
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.files import Record
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS
from ltgc.pipeline.terminal import output

VARIANTS = Path("ablations/variants.yaml")
RUNS = Path("ablations/runs")
RESULTS = Path("ablations/results")
TABLE = Path("metrics/ablations.json")
# <comparison>.json: {"compare": as metrics/compare.json, "paired": as paired.json, "loops": checks of loops.json,
# "costs": method -> MethodCosts}. Runs of the same give the same bytes, but for `seconds` of the costs.
COMPARISONS = Path("results")
METHOD = "balancemix"  # what a variant trains, unless it changes the own settings of another method
LTGC = "ltgc"  # the row of the pipeline itself with METHOD; with another method, the row has the method's name

# Of the filter, in the table of variants: what is known of it, and what the stage generate drew and asked.
QUALITY = ("auroc", "right_accepted", "wrong_share_drawn", "wrong_share_accepted")
ASKED = ("drawings", "calls", "vision_calls")

Changes = dict[str, Any]  # dotted key of params.yaml -> value


class Result(Record):
    """What a method reached in one variant (ablations/results/<variant>.json)."""

    method: str
    generated: int  # images in D_g
    runs: list[RunMetrics]  # of each seed
    filter: dict[str, Any] | None = None  # see filtering(); None where the truth about the drawings is not known


class Row(Record):
    """A variant in metrics/ablations.json, in percent and points.

    less_ltgc is less the unchanged pipeline with the same method, paired by seed; None for that one itself.
    """

    method: str
    generated: int
    accuracy: dict[str, Statistic]
    less_ltgc: dict[str, Statistic] | None
    filter: dict[str, Any] | None = None  # as of Result


def variants() -> dict[str, Changes]:
    """name -> what it changes. Raises LTGCError for a file that does not say so."""
    return _read("variants")


def comparisons() -> dict[str, Changes]:
    """The same of the comparisons; the file may have none."""
    return _read("comparisons")


def _read(section: str) -> dict[str, Changes]:
    raw = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))
    try:
        return TypeAdapter(dict[str, dict[str, Changes]]).validate_python(raw).get(section, {})
    except ValidationError as error:
        raise LTGCError(f"{VARIANTS}: {section}: expected name: {{key of params.yaml: value}}") from error


def build(variant: str, changes: Changes) -> Path:
    """Make or refresh the folder of a variant; returns it. Raises LTGCError for a key that params.yaml lacks."""
    folder = RUNS / variant
    side_folder.build(folder, changed(variant, changes))
    (folder / EXISTING).parent.mkdir(exist_ok=True)
    shutil.copy(EXISTING, folder / EXISTING)
    return folder


def method_of(changes: Changes) -> str:
    """What a variant trains: the method whose own settings it changes (train.own.<method>), or METHOD."""
    own = [key.split(".")[2] for key in changes if key.startswith("train.own.")]
    return own[0] if own else METHOD


def base(method: str) -> str:
    """The name of the row that variants of `method` are compared with."""
    return LTGC if method == METHOD else method


def take_finished_runs(folder: Path) -> None:
    """Give the folder of a comparison what it shares with the pipeline: finished runs, their times, what
    `ask` scored and what `describe` asked.

    Runs on photos alone come from other comparisons, too: other drawings make no other run of them. A run that is
    the same there is not trained again (ltgc/training/runs.py).
    """
    for source in (Path(), *sorted(RUNS.glob("*"))):
        for model in sorted((source / MODELS).glob("*/*")):
            run = model.relative_to(source / MODELS)
            if (folder / MODELS / run).exists() or (source != Path() and run.parts[0] not in WITHOUT_DRAWINGS):
                continue
            for made in (MODELS, CURVES):
                if (source / made / run).exists():
                    shutil.copytree(source / made / run, folder / made / run, dirs_exist_ok=True)
        stage.copy_run_timings(source, folder)
    for file in (ASK, CALLS / "describe.json"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file)


def stages(method: str) -> list[list[str]]:
    """What runs in the folder of a variant, one after another: the arguments of `python -m`.

    method: the only one that is trained; empty: all, and they are compared.
    """
    # Whole names: by them the digest code/ablate.txt covers these stages (ltgc/pipeline/code_digest.py).
    loops = [["stages.extend"], ["stages.templates"], ["stages.generate"], ["stages.quality"]]
    if not method:
        return [*loops, ["stages.train"], ["stages.evaluate"], ["stages.compare"]]
    return [*loops, ["stages.train", method], ["stages.evaluate", method]]


def changed(variant: str, changes: Changes) -> dict[str, Any]:
    """params.yaml with the keys of a variant changed."""
    values = yaml.safe_load(params.PARAMS.read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *sections, last = dotted.split(".")
        place = _section(values, sections)
        # A method may have any key of train for itself, also one that is not among its own yet.
        known = _section(values["train"], sections[3:]) if sections[:2] == ["train", "own"] else place
        if place is None or known is None or last not in known:
            raise LTGCError(f"{VARIANTS}: {variant}: params.yaml has no key {dotted!r}")
        place[last] = value
    return values


def _section(values: Any, sections: Sequence[str]) -> dict[str, Any] | None:
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def comparison(truth: Truth | None = None) -> dict[str, Any]:
    """What the stage compare wrote in the working directory; with a truth, also how right the checks were."""
    found = {"compare": files.read_json(COMPARE), "paired": files.read_json(PAIRED)}
    if truth is None:
        return found
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    extended = files.read_jsonl(EXTENDED, ExtendedDescription)
    existing = files.read_jsonl(EXISTING, ExistingDescription)
    return found | {"loops": checks(attempts, extended, existing, truth)}


def filtering(truth: Truth) -> dict[str, Any]:
    """How right the filter was in the working directory, and what its stage drew and asked."""
    quality = filter_quality(files.read_jsonl(ATTEMPTS, Attempt), truth)
    calls = files.read_json(CALLS / "generate.json")
    return {name: quality[name] for name in QUALITY} | {name: calls.get(name, 0) for name in ASKED}


def result(seeds: Sequence[int], method: str = METHOD, truth: Truth | None = None) -> Result:
    """What `method` reached in the working directory; with a truth, also how right the filter was."""
    runs = [files.read_record(RUN_METRICS / method / f"{seed}.json", RunMetrics) for seed in seeds]
    run = files.read_record(MODELS / method / str(seeds[0]) / "run.json", Run)
    filtered = None if truth is None else filtering(truth)
    return Result(method=method, generated=run.generated, runs=runs, filter=filtered)


def rows(results: Mapping[str, Result]) -> dict[str, Row]:
    """The table: the unchanged pipeline, then each variant less it. A run that was skipped has no figures."""
    runs = {name: found.runs for name, found in results.items()}
    accuracy = summarise(runs)
    less: Comparison = {}
    for method in {found.method for found in results.values()}:
        less |= differences({name: runs[name] for name in runs if results[name].method == method}, base(method))
    return {
        name: Row(
            method=found.method,
            generated=found.generated,
            accuracy=accuracy[name],
            less_ltgc=less.get(name),
            filter=found.filter,
        )
        for name, found in results.items()
    }


def print_table() -> None:
    read = {name: Row.model_validate(row) for name, row in files.read_json(TABLE).items()}
    drawn = ", ".join(f"{name} {row.generated:,}" for name, row in read.items())
    console = output()
    console.print(
        comparison_table({name: row.accuracy for name, row in read.items()}, [f"images in D_g: {drawn}"]), "\n"
    )
    for method in dict.fromkeys(row.method for row in read.values()):
        less = {name: row.less_ltgc for name, row in read.items() if row.less_ltgc and row.method == method}
        console.print(difference_table(less, base(method), "seeds alone"))
