"""Training that is killed and goes on, and training in parts: the same run as one that was left alone."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.paths import ROOT

from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.training import checkpoint
from stages.evaluate import main as evaluate_stage
from stages.train import main as train_stage

SAVED = Path(".checkpoints/balancemix/1.safetensors")
LORA = {"rank": 2, "alpha": 4, "dropout": 0.3}

# What each process runs: both stages, and nothing else of theirs than what they print.
BOTH_STAGES = """
from accelerate import PartialState
from stages import evaluate, train

train.main("balancemix", "1")
PartialState().wait_for_everyone()
evaluate.main("balancemix")
"""


def change_params(root: Path, section: str, **values: Any) -> None:
    everything = yaml.safe_load((root / "params.yaml").read_text())
    everything[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(everything))


def take_results(root: Path) -> dict[str, bytes]:
    """The model and its training curves; they are deleted, so that the next run is trained from the start."""
    folders = [root / "models", root / "plots"]
    taken = {
        str(p.relative_to(root)): p.read_bytes() for f in folders for p in sorted(f.rglob("*")) if p.is_file()
    }
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return taken


def losses(results: dict[str, bytes]) -> list[float]:
    lines = results["plots/curves/balancemix/1/plots/metrics/loss.tsv"].decode().splitlines()
    return [float(row["loss"]) for row in csv.DictReader(lines, delimiter="\t")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A forked process has none of its parent's OpenMP threads, and sums in another order than two would."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train_and_be_killed_after(step: int) -> None:
    """Run the stage in a process of its own, which SIGKILL ends when it has written the checkpoint of `step`."""
    child = os.fork()
    if not child:
        write = checkpoint.write

        def write_and_die(path: Path, key: str, tensors: Any, state: dict[str, Any]) -> None:
            write(path, key, tensors, state)
            if state["step"] == step:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.write = write_and_die
        try:
            train_stage("balancemix", "1")
        finally:
            os._exit(0)  # not reached
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def checkpointed_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints that are written from now on."""
    steps: list[int] = []
    write = checkpoint.write

    def note(path: Path, key: str, tensors: Any, state: dict[str, Any]) -> None:
        steps.append(state["step"])
        write(path, key, tensors, state)

    monkeypatch.setattr(checkpoint, "write", note)
    return steps


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_bytes(
    in_world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = in_world(steps=35, checkpoint_steps=10, lr=0.02, lora=LORA)
    train_stage("balancemix", "1")
    expected = take_results(root)
    assert "models/balancemix/1/adapter/adapter_model.safetensors" in expected and not SAVED.exists()

    train_and_be_killed_after(20)
    take_results(root)
    steps = checkpointed_steps(monkeypatch)
    train_stage("balancemix", "1")
    assert steps == [30]  # the first 20 were not taken again
    assert take_results(root) == expected
    assert not SAVED.exists()


def remove_a_photo(root: Path) -> None:
    head, _, *others = (root / MANIFEST).read_text().splitlines(keepends=True)
    (root / MANIFEST).write_text("".join([head, *others]))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "other params": lambda root: change_params(root, "train", lr=0.01),
    "other photos": remove_a_photo,
    "damaged": lambda root: SAVED.write_bytes(SAVED.read_bytes()[:-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_gone_on_from(
    change: str, in_world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = in_world(steps=4, checkpoint_steps=2, lora=LORA)
    train_and_be_killed_after(2)
    CHANGES[change](root)
    steps = checkpointed_steps(monkeypatch)
    train_stage("balancemix", "1")
    assert steps == [2]


def test_a_batch_in_parts_gives_the_same_losses_to_rounding(in_world: Callable[..., Path]) -> None:
    root = in_world(lr=0.02)
    train_stage("balancemix", "1")
    whole = losses(take_results(root))
    change_params(root, "train", accumulation=3)  # of 5 pairs: parts of 1, 2 and 2
    train_stage("balancemix", "1")
    assert losses(take_results(root)) == pytest.approx(whole, rel=1e-4)


def test_two_processes_give_the_losses_and_predictions_of_one(in_world: Callable[..., Path]) -> None:
    root = in_world(lr=0.02, steps=6, checkpoint_steps=2)
    everything = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(everything | {"seeds": [1]}))
    tested = Path("predictions/balancemix/1.csv")
    train_stage("balancemix", "1")
    evaluate_stage("balancemix")
    predictions = tested.read_text()
    tested.unlink()
    alone = take_results(root)

    (root / "both_stages.py").write_text(BOTH_STAGES)
    launch = "-m accelerate.commands.launch --cpu --num_processes 2 --main_process_port 0 both_stages.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch.split()], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    together = take_results(root)
    assert together.keys() == alone.keys()
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)  # of 5 pairs a step: 2 and 3
    rows = [[line.rsplit(",", 1) for line in text.splitlines()[1:]] for text in (predictions, tested.read_text())]
    assert [row[0] for row in rows[1]] == [row[0] for row in rows[0]]  # path, label, prediction
    assert len(rows[1]) == 9  # shares of 5 and 4, in batches of 4: the last ones are short
    confidences = [[float(row[1]) for row in one] for one in rows]
    assert confidences[1] == pytest.approx(confidences[0], abs=1e-3)
    assert done.stderr.count("validation accuracy") == 1  # one of them speaks and writes
