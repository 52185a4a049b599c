"""dvc.yaml against the code: a stage reads the params that it declares, and the paths are the same in both."""

import ast
from pathlib import Path

import pytest
import yaml
from helpers.paths import ROOT

from ltgc.evaluation import ablations
from ltgc.pipeline import artifacts, params, side_folder
from ltgc.pipeline.artifacts.feedback import RIVALS
from ltgc.pipeline.artifacts.replies import CALLS, STORE
from ltgc.pipeline.artifacts.review import REVIEW
from ltgc.pipeline.settings.training import TrainSettings

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def loaded_keys(module: Path, function: str = "params.load") -> set[str]:
    """The literal arguments of `params.load(...)`, or of another function, in a stage's source."""
    calls = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    loads = [c for c in calls if ast.unparse(c.func) == function]
    return {ast.literal_eval(argument) for call in loads for argument in call.args}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_params_that_it_loads(name):
    declared = STAGES[name].get("params", [])
    if declared == [{"params.yaml": None}]:  # the report shows the whole file
        return
    assert set(declared) == loaded_keys(ROOT / "stages" / f"{name}.py")


def test_variants_depend_on_every_setting_of_the_methods_that_they_train():
    stages = yaml.safe_load((ROOT / "ablations/dvc.yaml").read_text(encoding="utf-8"))["stages"]
    declared = {key for key in stages["ablate"]["do"]["params"] if str(key).startswith("train")}
    trained = set(map(ablations.method_of, ablations.variants().values())) & params.load("train").train.own.keys()
    keys = set(TrainSettings.model_fields) - {"own"} | {f"own.{method}" for method in trained}
    assert declared == {f"train.{key}" for key in keys}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_prompts_that_it_loads(name):
    loaded = loaded_keys(ROOT / "stages" / f"{name}.py", "prompts.load")
    assert {dep for dep in STAGES[name]["deps"] if dep.startswith("prompts/")} == {
        f"prompts/{prompt}.txt" for prompt in loaded
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_described_runs_its_module_and_depends_on_it(name):
    stage = STAGES[name]
    assert stage["desc"]
    assert stage["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
    assert name == "code" or f"code/{name}.txt" in stage["deps"]


def test_every_path_in_the_code_is_in_dvc_yaml():
    declared = {REVIEW.as_posix(), RIVALS.as_posix()}  # git's, and no output
    for stage in STAGES.values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                declared.add((out if isinstance(out, str) else next(iter(out))).split("/${")[0])
    for name, path in artifacts.paths().items():
        if path not in (STORE, CALLS):
            assert any(d.removesuffix(".csv") == path.as_posix().removesuffix(".csv") for d in declared), name


def test_a_side_folder_links_nothing_that_a_stage_would_write_to():
    kinds = ("outs", "metrics", "plots")
    outs = [out for stage in STAGES.values() for kind in kinds for out in stage.get(kind, [])]
    made = {Path(out if isinstance(out, str) else next(iter(out))).parts[0] for out in outs}
    assert made - {"data", "code"} <= side_folder.MADE  # variants read these two, and make none


def test_the_stores_of_paid_replies_persist():
    for name in ("describe", "extend", "templates", "generate", "ask"):
        assert {f"store/{name}": {"persist": True}} in STAGES[name]["outs"]
    for name in ("accepted", "rejected"):  # drawings that were pulled are taken into the pool from there
        assert {f"generated/{name}": {"persist": True}} in STAGES["generate"]["outs"]


def test_a_section_that_was_not_asked_for_cannot_be_read():
    section = params.load("clip", "extend.target", path=ROOT / "params.yaml")
    assert section.extend.target >= 0
    with pytest.raises(AttributeError):
        _ = section.extend.max_rounds
    with pytest.raises(AttributeError):
        _ = section.llm


def test_dvc_lock_holds_no_stage_that_is_gone():
    # `dvc repro` leaves the entries of stages that were renamed, and every command reads them all.
    for lock in (ROOT / "dvc.lock", ROOT / "ablations/dvc.lock"):
        if lock.exists():
            declared = yaml.safe_load(lock.with_suffix(".yaml").read_text(encoding="utf-8"))["stages"]
            locked = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
            assert {name.partition("@")[0] for name in locked} <= set(declared), lock
