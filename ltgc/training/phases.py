"""What the loop trains: a method is one phase, or those of its file in ltgc/training/systems.

A system is a generator of phases. What it does between two of them happens after the first is trained: it freezes,
scores, or gives the classifier a new part. Evaluation loads what `Classifier.save` wrote, and knows no system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ltgc.classifier.network import Classifier
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import losses
from ltgc.training.batches import Batch
from ltgc.training.inputs import Inputs, Labelled
from ltgc.training.losses import Loss
from ltgc.training.methods import Recipe
from ltgc.training.plan import Plan, TrainingSet, make_plan
from ltgc.training.priors import class_counts, class_prior, source_priors

# Network and batch -> the mean over the images of the batch: the shares of a batch add up.
Objective = Callable[[nn.Module, Batch], Tensor]


class Around(nn.Module):
    """A classifier and what a phase computes of it besides its logits, or trains beside it."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def classes(self) -> int:
        return self.classifier.classes

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """As of `Classifier`."""
        return self.classifier.parameter_groups(weight_decay)


@dataclass(frozen=True)
class TrainingPhase:
    network: Classifier | Around  # what requires gradients learns
    plan: Plan
    settings: TrainSettings  # steps, batch_size and lr are those of the phase
    objective: Objective


@dataclass(frozen=True)
class Setup:
    """What a run starts from."""

    recipe: Recipe
    settings: TrainSettings
    inputs: Inputs
    images: Sequence[Labelled]  # of `data`, in its order
    data: TrainingSet
    classifier: Classifier

    def loss(self, soft_targets: bool = False) -> Loss:
        """The loss that train.loss names, for the classes as the recipe samples them."""
        classes, device = self.classifier.classes, self.classifier.device
        of_classes = losses.Classes(
            prior=class_prior(self.recipe, self.data, self.settings, classes).to(device),
            counts=class_counts(self.recipe, self.data, classes).to(device),
            logit_scale=self.classifier.logit_scale,
        )
        return losses.make(self.settings, of_classes, soft_targets)


System = Callable[[Setup], Iterator[TrainingPhase]]


def single_phase(setup: Setup) -> Iterator[TrainingPhase]:
    """The system of a method that is a row of METHODS and nothing more."""
    plan = make_plan(setup.recipe, setup.data, setup.settings)
    priors = None
    if plan.source is not None:
        priors = source_priors(setup.recipe, setup.data, setup.settings, setup.classifier.classes)
    objective = classification(setup.loss(plan.soft), priors)
    yield TrainingPhase(setup.classifier, plan, setup.settings, objective)


def classification(loss: Loss = F.cross_entropy, source_priors: Tensor | None = None) -> Objective:
    """`loss` of the network's logits (n, C) and the targets.

    source_priors: (sources, C), what is added to an image's logits by its source (Plan.source); None: nothing.
    """

    def objective(network: nn.Module, batch: Batch) -> Tensor:
        logits = network(batch.pixels)
        if batch.source is not None and source_priors is not None:
            logits = logits + source_priors[batch.source]
        return loss(logits, batch.targets)

    return objective


CROSS_ENTROPY = classification()
