"""Stage train makes all runs in one process: which ones it trains, and which are finished already."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.paths import ROOT

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.pipeline.artifacts.descriptions import TEMPLATES
from ltgc.pipeline.artifacts.runs import Run
from ltgc.pipeline.errors import LTGCError
from ltgc.training import fit, runs
from stages.train import main as train_stage

BOTH = ["clip_zero_shot", "balancemix"]


@pytest.fixture
def root(in_world: Callable[..., Path]) -> Path:
    folder = in_world(steps=3, checkpoint_steps=2)
    change_params(folder, methods=BOTH, seeds=[0, 1])
    return folder


def change_params(root: Path, **changes: Any) -> None:
    """A mapping changes only its keys."""
    values = yaml.safe_load((root / "params.yaml").read_text())
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for f in ("models", "plots") for p in (root / f).rglob("*") if p.is_file()}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that are trained from now on, in their order."""
    noted: list[tuple[str, int]] = []
    fitted = fit.fit

    def note(run_id: runs.RunId, *arguments: Any) -> Any:
        noted.append((run_id.method, run_id.seed))
        return fitted(run_id, *arguments)

    monkeypatch.setattr(fit, "fit", note)
    return noted


def test_a_seed_or_a_method_more_trains_only_that(root: Path, trained: list[tuple[str, int]]) -> None:
    train_stage()
    assert trained == [(method, seed) for method in BOTH for seed in (0, 1)]
    before = contents(root)
    change_params(root, seeds=[0, 1, 2])
    train_stage()
    assert trained[4:] == [("clip_zero_shot", 2), ("balancemix", 2)]
    change_params(root, methods=[*BOTH, "mixup"])
    train_stage()
    assert trained[6:] == [("mixup", 0), ("mixup", 1), ("mixup", 2)]
    after = contents(root)
    assert {name: after[name] for name in before} == before


def test_runs_that_are_not_asked_for_any_more_leave_the_outputs_and_come_back_untrained(
    root: Path, trained: list[tuple[str, int]]
) -> None:
    train_stage()
    before = contents(root)
    change_params(root, methods=["clip_zero_shot"], seeds=[1])
    train_stage()
    assert {str(Path(name).relative_to(root)) for name in contents(root)} == {
        "models/clip_zero_shot/1/run.json",
        "models/clip_zero_shot/1/head.safetensors",
    }
    assert not (root / "models/balancemix").exists()
    change_params(root, methods=BOTH, seeds=[0, 1])
    train_stage()
    assert contents(root) == before and len(trained) == 4


def test_going_back_to_earlier_params_gives_the_earlier_runs_without_training(
    root: Path, trained: list[tuple[str, int]]
) -> None:
    train_stage("balancemix", "0")
    first = contents(root)
    change_params(root, train={"lr": 0.01})
    train_stage("balancemix", "0")
    second = contents(root)
    assert len(trained) == 2 and first.keys() == second.keys() and first != second
    change_params(root, train={"lr": 0.0003})
    train_stage("balancemix", "0")
    assert contents(root) == first
    change_params(root, train={"lr": 0.01})
    train_stage("balancemix", "0")
    assert contents(root) == second and len(trained) == 2


def one_photo_less(root: Path) -> None:
    head, _, *others = (root / MANIFEST).read_text().splitlines(keepends=True)
    (root / MANIFEST).write_text("".join([head, *others]))


def another_drawing(root: Path) -> None:
    first, second = sorted((root / "generated/accepted").rglob("*.png"))[:2]
    shutil.copy(first, second)


def another_template(root: Path) -> None:
    path = root / TEMPLATES
    path.write_text(path.read_text().replace("petal number 2", "three petals"))


CHANGES: dict[str, Callable[[Path], None]] = {
    "photo": one_photo_less,
    "drawing": another_drawing,
    "template": another_template,
    "setting": lambda root: change_params(root, train={"beta": [2.0, 1.0]}),
    "CLIP": lambda root: change_params(root, clip={"revision": "sha256:" + "0" * 64}),
    "code": lambda root: files.write_text(root / "code/train.txt", f"code {(root / 'models').exists()}"),
    "damaged run": lambda root: (root / "models/balancemix/0/run.json").write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_trained_again_where_something_it_is_trained_from_has_changed(
    change: str, root: Path, trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltgc.training.loop.train", lambda *_, **__: [{"val_accuracy": 0}])  # takes no step
    CHANGES["code"](root)
    for _ in range(2):
        train_stage("balancemix", "0")
    assert len(trained) == 1
    CHANGES[change](root)
    if change == "CLIP":
        with pytest.raises(LTGCError, match=r"clip\.revision"):  # which the weights do not have
            train_stage("balancemix", "0")
    else:
        train_stage("balancemix", "0")
    assert len(trained) == (1 if change == "CLIP" else 2)


def test_other_drawings_train_no_run_again_that_is_trained_on_photos_alone(
    root: Path, trained: list[tuple[str, int]]
) -> None:
    change_params(root, methods=["clip_finetune", "balancemix"], seeds=[0])
    train_stage()
    run = files.read_record(root / "models/clip_finetune/0/run.json", Run)
    assert run.original and not run.generated
    another_drawing(root)
    train_stage()
    assert trained[2:] == [("balancemix", 0)]


@pytest.mark.parametrize("key", ["workers", "checkpoint_steps"])
def test_settings_that_change_no_result_train_nothing(
    key: str, root: Path, trained: list[tuple[str, int]]
) -> None:
    train_stage("balancemix", "0")
    change_params(root, train={key: 1})
    train_stage("balancemix", "0")
    assert len(trained) == 1


def test_where_every_run_is_finished_torch_is_not_even_imported(root: Path) -> None:
    train_stage("clip_zero_shot")
    check = "import sys; from stages import train; train.main('clip_zero_shot'); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0


def test_a_stage_that_is_killed_keeps_the_runs_that_were_finished(
    root: Path, trained: list[tuple[str, int]]
) -> None:
    change_params(root, methods=["clip_finetune"])
    child = os.fork()
    if not child:
        fitted = fit.fit

        def fit_one_and_die(run_id: runs.RunId, *arguments: Any) -> Any:
            if run_id.seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return fitted(run_id, *arguments)

        fit.fit = fit_one_and_die
        try:
            train_stage()
        finally:
            os._exit(0)  # not reached
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    train_stage()
    assert trained == [("clip_finetune", 1)]
    assert json.loads((root / "models/clip_finetune/0/run.json").read_text())["steps"] == 3
