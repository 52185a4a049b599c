"""LPT: Long-tailed Prompt Tuning (Dong et al., ICLR 2023). Needs train.tuning: prompts.

First half of the steps: prompts that all images share, and the head. Second half: group prompts that are matched
to the image, their keys, and the head, from pairs of batches of which one is class-balanced and one is not.
The encoder is frozen. Numbers and loss are those of the authors' code for the second phase; they did not publish
that of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltgc.classifier.prompts import Prompted
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training.batches import Batch
from ltgc.training.phases import Around, Objective, Setup, TrainingPhase
from ltgc.training.plan import Plan, make_plan
from ltgc.training.priors import class_counts
from ltgc.training.samplers import CLASS_BALANCED, UNIFORM

POOL, MATCHED = 20, 2
MATCHING = 0.5  # weight of the keys' nearness to the images that they are matched with
UNBALANCED = 0.5  # weight of the batch as images come, at first; it falls to 0 in a straight line
CLOUD, MARGIN, SMOOTHING = 0.5, 0.1, 0.1


@dataclass(frozen=True)
class CloudedLogits:
    """The asymmetric Gaussian-clouded logit loss, A-GCL (§4.3): the loss of each image, (B,).

    The cosine of class c loses CLOUD |e| log(n_max / n_c) / log(n_max / n_min), e ~ N(0, 1/3) within [-1, 1]: the
    rarer a class, the more. That of the label loses MARGIN. The loss is the cross-entropy of the smoothed label
    with the softmax p of these, (1 - p)^positive times that of the label and p^negative times that of the others
    (ASL, Ridnik et al. 2021).
    """

    rarity: Tensor  # (C,) in [0, 1]
    scale: float
    positive: float
    negative: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        cloud = (torch.randn_like(logits) / 3).clamp(-1, 1).abs()
        label = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        log_p = F.log_softmax(logits - self.scale * (CLOUD * cloud * self.rarity + MARGIN * label), -1)
        p = log_p.exp()
        focus = torch.where(label > 0, (1 - p).clamp_min(1e-6) ** self.positive, p**self.negative)
        smoothed = label * (1 - SMOOTHING) + SMOOTHING / logits.shape[1]
        return -(smoothed * focus * log_p).sum(-1)


class Matched(Around):
    """pixels -> logits (B, C), and how near the matched keys are, (B,)."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        visual = self.classifier.visual
        assert isinstance(visual, Prompted)
        found, near = visual.encode(self.classifier.normalised(pixels))
        with torch.autocast(found.device.type, enabled=False):
            return self.classifier.logits(F.normalize(found.float(), dim=-1)), near.float()


def phases(setup: Setup) -> Iterator[TrainingPhase]:
    classifier, visual = setup.classifier, setup.classifier.visual
    if not isinstance(visual, Prompted):
        raise LTGCError("train.own.lpt.tuning: LPT tunes prompts; set it to prompts")
    rarity = _rarity(class_counts(setup.recipe, setup.data, classifier.classes)).to(classifier.device)
    balanced = CloudedLogits(rarity, classifier.logit_scale, positive=0.0, negative=4.0)
    unbalanced = CloudedLogits(rarity, classifier.logit_scale, positive=0.5, negative=8.0)

    half = setup.settings.model_copy(update={"steps": max(1, setup.settings.steps // 2)})
    plan = make_plan(setup.recipe, setup.data, half)
    labels = setup.data.labels.to(classifier.device)
    yield TrainingPhase(classifier, plan, half, _single(balanced, labels))

    visual.shared.requires_grad_(False)
    visual.add_groups(POOL, MATCHED)
    # Each step takes two batches, as the methods that mix do.
    pairs = half.model_copy(update={"batch_size": 2 * half.batch_size})
    yield TrainingPhase(Matched(classifier), dual_plan(setup, half), pairs, _dual(balanced, unbalanced, labels))


def dual_plan(setup: Setup, settings: TrainSettings) -> Plan:
    """In turn an image of a class-balanced batch, whose label counts 1, and one of a batch as images come.

    The label of the latter counts UNBALANCED at first and 0 in the end. settings: of each of the batches.
    """
    assert setup.recipe.i
    samplings = [replace(setup.recipe.i, sampler=sampler) for sampler in (CLASS_BALANCED, UNIFORM)]
    plans = [make_plan(replace(setup.recipe, i=sampling), setup.data, settings) for sampling in samplings]
    falling = UNBALANCED * (1 - torch.arange(settings.steps) / settings.steps)
    weight = torch.stack([torch.ones(settings.steps), falling], -1)  # (steps, 2)
    return Plan(
        i=torch.stack([plan.i for plan in plans], 2).flatten(1, 2),
        crops=torch.stack([plan.crops for plan in plans], 2).flatten(1, 2),
        weight=weight.repeat(1, settings.batch_size)[..., None],
        source=torch.tensor([0, 1]).repeat(settings.steps, settings.batch_size),
    )


def _single(loss: CloudedLogits, labels: Tensor) -> Objective:
    def objective(network: nn.Module, batch: Batch) -> Tensor:
        return loss(network(batch.pixels), labels[batch.i]).mean()

    return objective


def _dual(balanced: CloudedLogits, unbalanced: CloudedLogits, labels: Tensor) -> Objective:
    def objective(network: nn.Module, batch: Batch) -> Tensor:
        logits, near = network(batch.pixels)
        assert batch.source is not None
        own, weight = labels[batch.i], batch.targets.sum(-1)
        losses = torch.where(batch.source == 0, balanced(logits, own), unbalanced(logits, own))
        # Twice the mean over both batches: the sum of the means of each.
        return 2 * (weight * (losses - MATCHING * near)).mean()

    return objective


def _rarity(counts: Tensor) -> Tensor:
    """(C,) from 0 for the largest class to 1 for the smallest, by the logarithm of their images."""
    rarity = counts.max().log() - counts.clamp_min(1).log()
    return rarity / rarity.max().clamp_min(1e-6)
