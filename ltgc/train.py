"""Training: which images each method draws and mixes, and the one loop that fine-tunes them all (§3.2, §4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from ltgc import mixing, pixels, samplers
from ltgc.classifier import Classifier
from ltgc.errors import LTGCError
from ltgc.params import Method, Train
from ltgc.pixels import Pixels
from ltgc.stage import console

CURVE_POINTS = 30  # rows of a training curve
VALIDATIONS = 3  # of them with validation accuracy, the last step included


@dataclass(frozen=True)
class Draw:
    """One side of a batch: which images, and how they are drawn."""

    data: Literal["original", "generated", "both"]  # D_o, D_g, D_o ∪ D_g
    sampling: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a method draws x_i and, if it mixes, x_j."""

    i: Draw
    j: Draw | None = None  # None: no mixing
    needs_generated: bool = False  # without D_g it would be another method


# Table 4 and the CLIP rows of Tables 1 and 2. None: nothing is trained.
METHODS: dict[Method, Recipe | None] = {
    "clip_zero_shot": None,
    "clip_finetune": Recipe(Draw("original", samplers.uniform)),
    "no_balancemix": Recipe(Draw("both", samplers.uniform), needs_generated=True),
    "balanced_sample": Recipe(Draw("both", samplers.class_balanced)),
    "mixup": Recipe(Draw("both", samplers.uniform), Draw("both", samplers.uniform)),
    "balancemix": Recipe(
        Draw("original", samplers.class_balanced), Draw("generated", samplers.uniform), needs_generated=True
    ),
}


@dataclass(frozen=True)
class TrainingSet:
    """D_o and D_g in one: the first `original` images are D_o, the rest D_g."""

    pixels: Pixels  # N images
    labels: Tensor  # (N,) int64 on the CPU
    original: int

    def part(self, data: Literal["original", "generated", "both"]) -> slice:
        cut, end = self.original, len(self.labels)
        return {"original": slice(0, cut), "generated": slice(cut, end), "both": slice(0, end)}[data]


@dataclass(frozen=True)
class Plan:
    """What every step of a run draws: indices into the training set, and λ. All (steps, B)."""

    i: Tensor
    j: Tensor | None = None
    lam: Tensor | None = None

    def to(self, device: torch.device) -> Plan:
        j, lam = (None if t is None else t.to(device) for t in (self.j, self.lam))
        return Plan(self.i.to(device), j, lam)

    @property
    def images_seen(self) -> int:
        return self.i.numel() * (1 if self.j is None else 2)


def make_plan(recipe: Recipe, data: TrainingSet, settings: Train) -> Plan:
    """Draw a whole run ahead, on the CPU, from torch's global generator: 8 bytes an image seen."""
    shape = (settings.steps, settings.batch_size)

    def indices(draw: Draw) -> Tensor:
        part = data.part(draw.data)
        return part.start + draw.sampling(data.labels[part], math.prod(shape)).view(shape)

    i = indices(recipe.i)
    if recipe.j is None:
        return Plan(i)
    return Plan(i, indices(recipe.j), mixing.draw_lambda(settings.beta, shape))


def batch(plan: Plan, step: int, images: Pixels, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What the network sees at `step` (from 0): pixels (B, 3, H, W) in [0, 255] and targets.

    Targets are labels (B,), or soft targets (B, classes) where the plan mixes (Eq. 3, 4).
    """
    i = plan.i[step]
    if plan.j is None or plan.lam is None:
        return pixels.augment(images[i]), labels[i]
    j, lam = plan.j[step], plan.lam[step]
    x_i, x_j = pixels.augment(images[torch.cat([i, j])]).chunk(2)
    return mixing.mix(x_i, x_j, lam), mixing.mix_labels(labels[i], labels[j], lam, classes)


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
    Raises LTGCError when the loss is no longer a number. The random numbers of augmentation and dropout come
    from torch's global generator.
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
        images, targets = batch(plan, step - 1, data.pixels, labels, len(classifier.head))
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
