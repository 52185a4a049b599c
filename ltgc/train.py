"""Training: the one loop that fine-tunes every method (§3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from ltgc.classifier import Classifier
from ltgc.errors import LTGCError
from ltgc.params import Train
from ltgc.pixels import augment
from ltgc.plan import Plan, TrainingSet, batch
from ltgc.stage import console

CURVE_POINTS = 30  # rows of a training curve
VALIDATIONS = 3  # of them with validation accuracy, the last step included


def learning_rate(step: int, settings: Train) -> float:
    """As a factor of train.lr at `step` (from 0): linear warm-up, then a half cosine down to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def train(
    classifier: Classifier,
    plan: Plan,
    data: TrainingSet,
    settings: Train,
    validate: Callable[[], float | None] = lambda: None,
) -> list[dict[str, Any]]:
    """Fine-tune the adapter and the head of `classifier` on `plan`, in place; other weights stay as they are.

    validate: accuracy on the validation split in percent, called VALIDATIONS times and never acted on.
    Returns the training curve: step, loss (mean since the last row), lr, val_accuracy.
    Raises LTGCError when the loss is no longer a number. The random numbers of dropout come from torch's global
    generator.
    """
    labels = data.labels.to(classifier.head.device)
    plan = plan.to(labels.device)
    adapter = [p for p in classifier.visual.parameters() if p.requires_grad]
    # The head's length does not enter the logits: decay would only change its step size.
    groups = [
        {"params": adapter, "weight_decay": settings.weight_decay},
        {"params": [classifier.head], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, settings))
    rows_at = _marks(settings.steps, CURVE_POINTS)
    validate_at = _marks(settings.steps, VALIDATIONS)

    curve: list[dict[str, Any]] = []
    losses: list[Tensor] = []
    classifier.train()
    steps = range(1, settings.steps + 1)
    bar = track(steps, "training", console=console, transient=True, disable=not console.is_terminal)
    for step in bar:
        images = augment(data.pixels[plan.indices(step - 1)], plan.draws(step - 1))
        images, targets = batch(plan, step - 1, images, labels, len(classifier.head))
        loss = F.cross_entropy(classifier(images), targets)
        optimizer.zero_grad()
        loss.backward()
        if settings.grad_clip:
            torch.nn.utils.clip_grad_norm_([*adapter, classifier.head], settings.grad_clip)
        lr = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step in rows_at:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            if not math.isfinite(mean):
                raise LTGCError(f"train.lr: the loss was not a number before step {step}; lower train.lr")
            classifier.eval()
            accuracy = validate() if step in validate_at else None
            classifier.train()
            curve.append(
                {"step": step, "loss": float(f"{mean:.6g}"), "lr": float(f"{lr:.6g}"), "val_accuracy": accuracy}
            )
    classifier.eval()
    return curve


def _marks(steps: int, count: int) -> set[int]:
    """`count` steps of 1..steps, evenly spaced, the last one included."""
    return {-(-steps * k // count) for k in range(1, count + 1)}
