"""What a loss may know of the classes: how often a run shows each, and how many images it has."""

from __future__ import annotations

import torch
from torch import Tensor

from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training.methods import Recipe
from ltgc.training.plan import TrainingSet


def class_prior(recipe: Recipe, data: TrainingSet, settings: TrainSettings, classes: int) -> Tensor:
    """The share that each class is expected to have in the targets of a run, (classes,) float32, sums to 1.

    This is what a loss that corrects for the class frequencies has to correct: 1 / classes where sampling is
    class-balanced, and for BalanceMix the mean of that and of the drawings' frequencies, weighted by λ.
    """
    weight = torch.ones(len(data.labels))
    weight[data.original :] = settings.generated.weight
    samplings = recipe.samplings(settings)
    a, b = settings.beta
    shares = [a / (a + b), b / (a + b)] if len(samplings) == 2 else [1.0]  # E[λ] and 1 - E[λ]
    prior = torch.zeros(classes)
    for sampling, share in zip(samplings, shares, strict=True):
        images = data.range(sampling.data)
        labels = data.labels[images]
        prior.index_add_(0, labels, share * sampling.sampler.frequencies(labels) * weight[images])
    return prior / prior.sum()


def class_counts(recipe: Recipe, data: TrainingSet, classes: int) -> Tensor:
    """How many images of each class the method samples from, (classes,) int64."""
    sampled = torch.zeros(len(data.labels), dtype=torch.bool)
    for sampling in filter(None, (recipe.i, recipe.j)):
        sampled[data.range(sampling.data)] = True
    return torch.bincount(data.labels[sampled], minlength=classes)
