"""What a loss may know of the classes: how often a run shows each, and how many images it has."""

from __future__ import annotations

import torch
from torch import Tensor

from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training.losses import NEVER
from ltgc.training.methods import Recipe, Sampling
from ltgc.training.plan import TrainingSet


def class_prior(recipe: Recipe, data: TrainingSet, settings: TrainSettings, classes: int) -> Tensor:
    """The share that each class is expected to have in the targets of a run, (classes,) float32, sums to 1.

    This is what a loss that corrects for the class frequencies has to correct: 1 / classes where sampling is
    class-balanced, and for BalanceMix the mean of that and of the drawings' frequencies, weighted by λ.
    """
    a, b = settings.beta
    prior = torch.zeros(classes)
    for phase in recipe.phases(settings, data.strongest_first):
        shares = [a / (a + b), b / (a + b)] if len(phase.samplings) == 2 else [1.0]  # E[λ] and 1 - E[λ]
        for sampling, share in zip(phase.samplings, shares, strict=True):
            labels, drawing, frequencies = _frequencies(sampling, data)
            weight = torch.where(drawing, settings.generated.weight, 1.0)
            prior.index_add_(0, labels, phase.steps / settings.steps * share * frequencies * weight)
    return prior / prior.sum()


def image_shares(recipe: Recipe, data: TrainingSet, settings: TrainSettings) -> Tensor:
    """The share that each image is expected to have in the targets of a run, (N,) float32, sums to 1."""
    a, b = settings.beta
    shares = torch.zeros(len(data.labels))
    for phase in recipe.phases(settings, data.strongest_first):
        parts = [a / (a + b), b / (a + b)] if len(phase.samplings) == 2 else [1.0]
        for sampling, part in zip(phase.samplings, parts, strict=True):
            share = phase.steps / settings.steps * part
            shares[data.images(sampling)] += share * _frequencies(sampling, data)[2]
    return shares


def source_priors(recipe: Recipe, data: TrainingSet, settings: TrainSettings, classes: int) -> Tensor:
    """What train.generated.adjust adds to logits: nothing for drawings, then for the photos of each phase.

    (1 + phases, classes) float32, the rows as Plan.source counts them: the log shares of the classes among the
    photos that the phase samples (Menon et al. 2021, Eq. 10). Where some classes have drawings as well, their
    photos are rarer, and without this a photo as such would speak against them. Drawings stay as they are: if they
    were adjusted, a class without drawings would not learn what it is not, which cost 1.5 points on validation.
    """
    rows = [torch.ones(classes)]
    for phase in recipe.phases(settings, data.strongest_first):
        labels, drawing, frequencies = _frequencies(phase.samplings[0], data)
        rows.append(photo_prior(labels, drawing, frequencies, classes))
    return torch.stack(rows).log()


def photo_prior(labels: Tensor, drawing: Tensor, frequencies: Tensor, classes: int) -> Tensor:
    """The shares of the classes among the photos, (classes,), of images sampled with these frequencies."""
    photos = torch.bincount(labels[~drawing], frequencies[~drawing], classes)
    return (photos / photos.sum().clamp_min(NEVER)).clamp_min(NEVER)


def _frequencies(sampling: Sampling, data: TrainingSet) -> tuple[Tensor, Tensor, Tensor]:
    """Of the images that are sampled from: labels, which are drawings, expected share of each in the samples."""
    images = data.images(sampling)
    labels, drawing = data.labels[images], data.drawing[images]
    return labels, drawing, sampling.sampler.frequencies(labels, drawing).float()


def class_counts(recipe: Recipe, data: TrainingSet, classes: int) -> Tensor:
    """How many images of each class the method samples from, (classes,) int64."""
    sampled = torch.zeros(len(data.labels), dtype=torch.bool)
    for sampling in filter(None, (recipe.i, recipe.j)):
        sampled[data.images(sampling)] = True
    return torch.bincount(data.labels[sampled], minlength=classes)
