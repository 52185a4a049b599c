"""Weights between those that training started from and the trained ones (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ltgc.classifier.network import Classifier

# Of which validation chooses; 1 is the trained classifier, 0 the one that training started from: on validation,
# training makes nothing worse. Few, as each is a pass over the validation images, and accuracy is flat in between.
ALPHAS = (1.0, 0.7, 0.3, 0.0)
SAFE = 0.7  # where some class has no validation image
# A product such as LoRA's BA starts at 0 because one factor does. Moving that one moves the product in a straight
# line; moving both would bend it.
OTHER_FACTOR = re.compile(r"lora_A\.|adapter\.(down|scale)\b")


def weights(classifier: Classifier) -> dict[str, Tensor]:
    """A copy of the weights that are interpolated: those that learn, less the other factors of products."""
    return {
        name: value.detach().clone()
        for name, value in classifier.named_parameters()
        if value.requires_grad and not OTHER_FACTOR.search(name)
    }


@torch.no_grad()
def interpolate(
    classifier: Classifier, start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> None:
    """Set the weights of `classifier` to (1 - alpha) start + alpha end. start, end: as `weights` gives them."""
    for name, value in classifier.named_parameters():
        if name in start:
            value.copy_(torch.lerp(start[name], end[name], alpha))


def choose(
    classifier: Classifier, start: Mapping[str, Tensor], trained: float, validate: Callable[[], float | None]
) -> tuple[float, float]:
    """Leave `classifier`, trained from `start`, at the best alpha of ALPHAS; returns it and its accuracy.

    trained: the accuracy of the classifier as it is; validate: measures it again. Of equals, the largest is taken.
    """
    end = weights(classifier)
    accuracies = {1.0: trained}
    for alpha in ALPHAS[1:]:
        interpolate(classifier, start, end, alpha)
        accuracies[alpha] = validate() or 0.0
    best = max(ALPHAS, key=lambda alpha: accuracies[alpha])
    interpolate(classifier, start, end, best)
    return best, accuracies[best]
