"""Linear probes on CLIP's frozen features: the head that training starts from, and whether drawings help.

Fine-tuning from a head that fits already changes the encoder less (LP-FT, Kumar et al. 2022). A probe takes
seconds: the features are computed once for all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.classifier.features import Features

STEPS, LR = 100, 0.003  # of Adam, on all images at once; accuracy is flat up to three times either
POINTS = 10  # between one head and the next, of which validation chooses; each costs one matrix product
# Logits at a time: 170 MB with gradients. Those of all images of ImageNet-LT would be 6 GB, of iNaturalist 150.
LOGITS = 2**23
SAFE = 0.75  # of the way from the texts to the probe, where some class has no validation image
CONFIDENCE = 1.645  # standard errors: one in twenty useless sets of drawings passes


@dataclass(frozen=True)
class Samples:
    """What a probe learns from, on one device."""

    features: Features  # (N, D) unit vectors
    labels: Tensor  # (N,) int64
    shares: Tensor  # (N,) how much each image counts; they sum to 1
    priors: Tensor  # (P, C) what is added to logits
    source: Tensor  # (N,) int64: the row of `priors` for each image


def parts(images: int, classes: int) -> Sequence[Tensor]:
    """The images, as indices (n,) int64, in parts that have at most LOGITS logits."""
    return torch.arange(images).split(max(1, LOGITS // classes))


def train_head(start: Tensor, samples: Samples, logit_scale: float) -> Tensor:
    """A cosine head (C, D), unit vectors, trained from `start` on frozen features."""
    head = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([head], LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in parts(len(samples.labels), len(head)):
            logits = logit_scale * samples.features[part] @ F.normalize(head, dim=-1).T
            logits = logits + samples.priors[samples.source[part]]
            losses = F.cross_entropy(logits, samples.labels[part], reduction="none")
            (samples.shares[part] * losses).sum().backward()
        optimizer.step()
    return F.normalize(head.detach(), dim=-1)


def choose(path: Sequence[Tensor], features: Features, labels: Tensor) -> tuple[Tensor, float]:
    """The head on the way along `path` that is right most often, by the mean of the classes, and where that is.

    path: heads (C, D), joined by straight lines; the place is 0 at the first, 1 at the second, and so on.
    features, labels: of validation images, every class among them. Of equals, the first is taken.
    """
    places = [place / POINTS for place in range((len(path) - 1) * POINTS + 1)]
    heads = {place: at(path, place) for place in places}
    accuracies = {p: _of_classes(_right(head, features, labels), labels).mean() for p, head in heads.items()}
    best = max(places, key=lambda place: accuracies[place])
    return heads[best], best


def at(path: Sequence[Tensor], place: float) -> Tensor:
    """The head at `place` of `path`, unit vectors."""
    leg = min(int(place), len(path) - 2)
    return F.normalize(torch.lerp(path[leg], path[leg + 1], place - leg), dim=-1)


def helps(head: Tensor, other: Tensor, features: Features, labels: Tensor) -> bool:
    """Whether `head` is right more often than `other` by more than chance explains, image by image.

    One-sided 95 % bound of the difference, each class counting as much. The variance is the share of images on
    which the two disagree, pooled over the classes: it is defined for a class of a single image, too.
    """
    difference = _right(head, features, labels) - _right(other, features, labels)
    gain = _of_classes(difference, labels).mean()
    counts = labels.bincount().double()
    error = (difference.square().mean() * (1 / counts).sum()).sqrt() / len(counts)
    return bool(gain > CONFIDENCE * error)


def predicted(head: Tensor, features: Features) -> Tensor:
    """The class whose unit vector in `head`, (C, D), is nearest to each image, (N,) int64."""
    return torch.cat([(features[part] @ head.T).argmax(-1) for part in parts(len(features), len(head))])


def _right(head: Tensor, features: Features, labels: Tensor) -> Tensor:
    return (predicted(head, features) == labels).double()


def _of_classes(values: Tensor, labels: Tensor) -> Tensor:
    """(C,) the mean of each class."""
    return labels.bincount(values) / labels.bincount()
