"""Training: the one loop that fine-tunes every method (§3.2), on any number of devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.progress import track
from torch import Tensor
from torch.optim import Optimizer

from ltgc.classifier import devices
from ltgc.classifier.network import Classifier
from ltgc.clip import pixels
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.pipeline.terminal import console
from ltgc.training import checkpoint
from ltgc.training.batches import Plan, TrainingSet, batch

CURVE_POINTS = 30  # rows of a training curve
VALIDATIONS = 3  # of them with validation accuracy, the last step included

ADAMW = ["step", "exp_avg", "exp_avg_sq"]  # what it keeps of each weight

Row = dict[str, Any]  # step, loss (mean since the last row), lr, val_accuracy


def learning_rate(step: int, settings: TrainSettings) -> float:
    """As a factor of train.lr at `step` (from 0): linear warm-up, then a half cosine down to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def train(
    classifier: Classifier,
    plan: Plan,
    data: TrainingSet,
    settings: TrainSettings,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    validate: Callable[[], float | None] = lambda: None,
    log: Callable[[Row], None] = lambda row: None,
    saved: Path | None = None,
    code: bytes = b"",
) -> list[Row]:
    """Fine-tune on `plan` what of `classifier` requires gradients, in place; other weights stay as they are.

    loss: of logits (n, C) and targets, the mean over the n images: the parts of a batch add up.
    validate: accuracy on the validation split in percent, called VALIDATIONS times and never acted on.
    log: called with each row of the training curve as it is known, again after a resume.
    saved: the file that checkpoints go to and that a killed run goes on from; the caller deletes it at the end.
    code: what tells this code from another; a checkpoint of other code is not gone on from.
    Returns the training curve. Raises LTGCError when the loss is no longer a number.
    Processes that accelerate launched take their parts of each batch; the result is one process's, to rounding.
    """
    accelerator = devices.accelerator(settings.device, settings.precision, settings.accumulation, settings.compile)
    # Dropout is seeded by step and process: a resumed run needs no state of a generator.
    noise = int(torch.randint(2**48, ()))
    saved = saved if settings.checkpoint_steps < settings.steps else None
    key = ""
    if saved:
        place = [accelerator.num_processes, accelerator.device.type]
        key = checkpoint.fingerprint(classifier.state_dict(), plan, data, repr(settings), noise, place, code)

    groups = classifier.parameter_groups(settings.weight_decay)
    network, optimizer = accelerator.prepare(classifier, torch.optim.AdamW(groups, settings.lr, fused=True))

    learning = [p for group in groups for p in group["params"]]
    losses = torch.zeros(settings.steps, device=accelerator.device)  # this process's part of each
    curve: list[Row] = []
    first = 0
    if saved and (found := checkpoint.read(saved, key)):
        first, curve = _restore(*found, classifier, optimizer, losses, accelerator)
        for row in curve:
            log(row)

    labels = data.labels.to(accelerator.device)
    parts = accelerator.num_processes * settings.accumulation
    if parts > settings.batch_size:
        raise LTGCError(f"train.batch_size: {settings.batch_size} images are no batch for {parts} parts; raise it")
    cpu = [plan.part(k, parts) for k in range(accelerator.process_index, parts, accelerator.num_processes)]
    mine = [part.to(accelerator.device) for part in cpu]
    reads = [(part.indices(step), part.draws(step)) for step in range(first, settings.steps) for part in cpu]
    images = pixels.batches(data.pixels, reads, accelerator.device, settings.workers)

    rows_at = _marks(settings.steps, CURVE_POINTS)
    validate_at = _marks(settings.steps, VALIDATIONS)
    last_row = curve[-1]["step"] if curve else 0
    classifier.train()
    for step in _progress(range(first + 1, settings.steps + 1), accelerator):
        torch.manual_seed(noise + step * accelerator.num_processes + accelerator.process_index)
        lr = settings.lr * learning_rate(step - 1, settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for part in mine:
            with accelerator.accumulate(network):
                x, targets = batch(part, step - 1, next(images), labels, len(classifier.head))
                value = loss(network(x), targets)
                # accelerate takes the mean over the parts; parts that are not of one size count by their sizes.
                accelerator.backward(value * (len(x) * parts / settings.batch_size))
                losses[step - 1] += value.detach() * (len(x) / settings.batch_size)
        if settings.grad_clip:
            accelerator.clip_grad_norm_(learning, settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if step in rows_at:
            mean = accelerator.reduce(losses[last_row:step]).mean().item()
            if not math.isfinite(mean):
                raise LTGCError(f"train.lr: the loss was not a number before step {step}; lower train.lr")
            accuracy = None
            if step in validate_at:
                classifier.eval()
                accuracy = validate()
                classifier.train()
            curve.append(
                {"step": step, "loss": float(f"{mean:.6g}"), "lr": float(f"{lr:.6g}"), "val_accuracy": accuracy}
            )
            log(curve[-1])
            last_row = step
        if saved and step % settings.checkpoint_steps == 0 and step < settings.steps:
            everyones = accelerator.reduce(losses)
            if accelerator.is_main_process:
                _save(saved, key, step, curve, classifier, optimizer, everyones, accelerator)
    accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    classifier.eval()
    return curve


def _save(
    path: Path,
    key: str,
    step: int,
    curve: list[Row],
    classifier: Classifier,
    optimizer: Optimizer,
    losses: Tensor,
    accelerator: Accelerator,
) -> None:
    tensors = {"losses": losses} | {f"value {name}": value for name, value in _moving(classifier).items()}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            tensors |= {f"{slot} {name}": value for slot, value in optimizer.state[parameter].items()}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
    checkpoint.write(path, key, tensors, {"step": step, "curve": curve, "scaler": scaler})


@torch.no_grad()
def _restore(
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    classifier: Classifier,
    optimizer: Optimizer,
    losses: Tensor,
    accelerator: Accelerator,
) -> tuple[int, list[Row]]:
    """Put everything back that `_save` kept; the step that was done, and the curve so far."""
    if accelerator.is_main_process:  # the losses of all are summed over the processes
        losses.copy_(tensors["losses"])
    for name, value in _moving(classifier).items():
        value.copy_(tensors[f"value {name}"])
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            optimizer.state[parameter] = {slot: tensors[f"{slot} {name}"].to(parameter.device) for slot in ADAMW}
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(state["scaler"])
    return state["step"], state["curve"]


def _moving(classifier: Classifier) -> dict[str, Tensor]:
    """What training changes: the weights that learn, and buffers."""
    frozen = {name for name, parameter in classifier.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in classifier.state_dict().items() if name not in frozen}


def _progress(steps: range, accelerator: Accelerator) -> Iterable[int]:
    shown = console.is_terminal and accelerator.is_main_process
    return track(steps, "training", console=console, transient=True, disable=not shown)


def _marks(steps: int, count: int) -> set[int]:
    """`count` steps of 1..steps, evenly spaced, the last one included."""
    return {-(-steps * k // count) for k in range(1, count + 1)}
