"""The one loop that trains every method (§3.2), on any number of devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.progress import track

from ltgc.classifier import devices
from ltgc.classifier.network import Classifier
from ltgc.pipeline import timing
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.pipeline.terminal import console
from ltgc.training.batches import batches
from ltgc.training.checkpoint import fingerprint
from ltgc.training.phases import CROSS_ENTROPY, Around, Objective
from ltgc.training.plan import Plan, TrainingSet
from ltgc.training.state import Row, State

CURVE_POINTS = 30  # rows of a training curve
VALIDATIONS = 3  # of them with validation accuracy, the last step included


@dataclass(frozen=True)
class Monitor:
    """What looks on while a classifier is trained, and changes nothing."""

    validate: Callable[[], float | None] = lambda: None  # accuracy on the validation split in percent
    show: Callable[[Row], None] = lambda row: None  # is given each row of the curve, again after a resume

    def after(self, steps: int) -> Monitor:
        """The same for a phase that follows `steps` steps of others: the curve goes on."""
        return Monitor(self.validate, lambda row: self.show(row | {"step": steps + row["step"]}))


@dataclass(frozen=True)
class Resume:
    """Where a killed run left its checkpoint."""

    path: Path  # written every train.checkpoint_steps; the caller deletes it at the end
    key: str  # of what the run is trained from: a checkpoint of another key is not used


def train(
    trained: Classifier | Around,
    plan: Plan,
    data: TrainingSet,
    settings: TrainSettings,
    *,
    objective: Objective = CROSS_ENTROPY,
    monitor: Monitor = Monitor(),
    resume: Resume | None = None,
) -> list[Row]:
    """Train on `plan` the weights of `trained` that require gradients, in place; the others stay as they are.

    Returns the training curve. Raises LTGCError when the loss is no longer a number.
    Processes that accelerate launched take their shares of each batch; the result is that of one process, up to
    rounding.
    """
    if settings.compile:
        torch.compiler.reset()  # it gives up on a function after eight networks
    accelerator = devices.for_training(settings)
    # Dropout is seeded by step and process: a resumed run needs no state of a generator.
    dropout_seed = int(torch.randint(2**48, ()))
    state = _initial_state(trained, settings, accelerator)
    key = ""
    if resume:
        world = [accelerator.num_processes, accelerator.device.type]
        key = fingerprint(resume.key, trained.state_dict(), world)
        state.restore(resume.path, key)
    for known in state.curve:
        monitor.show(known)
    shares = _shares(plan, accelerator, settings)
    samples = batches(shares, data, trained.classes, state.step, accelerator.device, settings.workers)
    rows_at = _marks(settings.steps, CURVE_POINTS)
    validate_at = _marks(settings.steps, VALIDATIONS)
    trained.train()
    for step in _progress(range(state.step + 1, settings.steps + 1), accelerator):
        torch.manual_seed(dropout_seed + step * accelerator.num_processes + accelerator.process_index)
        lr = settings.lr * learning_rate(step - 1, settings)
        with timing.steps:
            state.take_step(samples, objective, lr, settings)
            row = state.row(lr) if step in rows_at else None
        if row:
            _check(row)
            if step in validate_at:
                row["val_accuracy"] = _validated(trained, monitor)
            state.curve.append(row)
            monitor.show(row)
        if resume and step % settings.checkpoint_steps == 0 and step < settings.steps:
            state.save(resume.path, key)
    accelerator.unwrap_model(state.network, keep_fp32_wrapper=False)
    trained.eval()
    return state.curve


def learning_rate(step: int, settings: TrainSettings) -> float:
    """As a factor of train.lr at `step` (from 0): linear warm-up, then a half cosine down to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _initial_state(trained: Classifier | Around, settings: TrainSettings, accelerator: Accelerator) -> State:
    groups = trained.parameter_groups(settings.weight_decay)
    network, optimizer = accelerator.prepare(trained, torch.optim.AdamW(groups, settings.lr, fused=True))
    losses = torch.zeros(settings.steps, device=accelerator.device)
    return State(trained, network, optimizer, accelerator, losses)


def _shares(plan: Plan, accelerator: Accelerator, settings: TrainSettings) -> list[Plan]:
    """This process's shares of every batch, one an accumulation step."""
    count = accelerator.num_processes * settings.accumulation
    if count > settings.batch_size:
        raise LTGCError(
            f"train.batch_size: {settings.batch_size} images cannot be cut into {count} shares; raise it"
        )
    return [plan.share(k, count) for k in range(accelerator.process_index, count, accelerator.num_processes)]


def _validated(trained: Classifier | Around, monitor: Monitor) -> float | None:
    trained.eval()
    accuracy = monitor.validate()
    trained.train()
    return accuracy


def _check(row: Row) -> None:
    if not math.isfinite(row["loss"]):
        raise LTGCError(f"train.lr: the loss was not a number before step {row['step']}; lower train.lr")


def _progress(steps: range, accelerator: Accelerator) -> Iterable[int]:
    shown = console.is_terminal and accelerator.is_main_process
    return track(steps, "training", console=console, transient=True, disable=not shown)


def _marks(steps: int, count: int) -> set[int]:
    """`count` steps of 1..steps, evenly spaced, the last one included."""
    return {-(-steps * k // count) for k in range(1, count + 1)}
