"""What the trained model asks for next: which classes it takes for one another, and how often.

A fine-tuned encoder knows the photos that it has seen by heart. So the model here is the linear probe on CLIP's
frozen features from which `ltgc_plus` starts, and it judges images that it has not seen: those of each fold,
trained on the others. Neither the validation nor the test split is looked at.

Photos alone are poor evidence, because the few of a rare class look alike: with a budget by their recall out of
fold, descriptions went to classes of 8.7 % validation errors on average, with an even one to classes of 9.0 %
(drawn world; two sets of folds). Three things make it 14.0 %, of 21.5 % where the errors themselves decide:
accepted drawings, which show what the photos do not, are judged out of fold, too; probabilities are counted and
not choices; and a pair of classes is confused in both directions, so that a class of many images speaks for its
rare rival.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltgc.classifier.features import Rows
from ltgc.clip.class_texts import class_texts
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training.first_head import probed_head
from ltgc.training.inputs import Inputs
from ltgc.training.methods import METHODS
from ltgc.training.plan import TrainingSet

FOLDS = 5
ROWS = 4096  # images whose probabilities are in memory at a time


def confusions(inputs: Inputs, settings: TrainSettings) -> Tensor:
    """(C, C) float32, symmetric: the mean probability with which images of a class are taken for the other.

    The mean is over the two directions; the diagonal is 0. settings: of `ltgc_plus`.
    """
    photos, drawings = inputs.photos("train"), inputs.drawings(settings.generated)
    features, labels = inputs.features([*photos, *drawings])
    drawing = torch.arange(len(labels)) >= len(photos)
    texts = inputs.clip.text_features(class_texts("templates", inputs.classes, inputs.templates))
    scale = settings.logit_scale or inputs.clip.logit_scale
    kinds = 2 * labels + drawing
    fold, weights = folds(kinds), shares(kinds)
    found = torch.zeros(len(texts), len(texts))
    for number in range(FOLDS):
        known, unknown = (mask.nonzero()[:, 0] for mask in (fold != number, fold == number))
        data = TrainingSet(Rows(features, known), labels[known], original=int((~drawing[known]).sum()))
        head = probed_head(METHODS["ltgc_plus"], settings, texts, scale, data)
        for rows in unknown.split(ROWS):
            probabilities = (scale * features[rows] @ head.T).softmax(-1).cpu()
            found.index_add_(0, labels[rows], weights[rows, None] * probabilities)
    return ((found + found.T) / 2).fill_diagonal_(0)


def folds(kinds: Tensor) -> Tensor:
    """The fold of each image, in [0, FOLDS): at random, of each kind about as many in each, always the same."""
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))
    by_kind = order[kinds[order].sort(stable=True).indices]
    fold = torch.empty_like(kinds)
    fold[by_kind] = torch.arange(len(kinds)) % FOLDS
    return fold


def shares(kinds: Tensor) -> Tensor:
    """How much each image counts for its class, (N,): photos and drawings, kinds 2 y and 2 y + 1, half each."""
    counts = kinds.bincount(minlength=2 * int(kinds.max() // 2) + 2)
    present = (counts.view(-1, 2) > 0).sum(1)
    return 1 / (counts[kinds] * present[kinds // 2])


def rivals(mutual: Tensor, count: int, least: float) -> list[list[int]]:
    """For each class the `count` that it is most confused with, the most first.

    mutual: of `confusions`. least: classes that are confused less are no rivals.
    """
    values, classes = mutual.topk(min(count, len(mutual) - 1))
    return [
        [c for value, c in zip(row, of_row, strict=True) if value >= least]
        for row, of_row in zip(values.tolist(), classes.tolist(), strict=True)
    ]


def divide(total: int, needs: Sequence[float]) -> list[int]:
    """`total` in whole parts in proportion to `needs`, by largest remainders; evenly where nothing is needed."""
    whole = sum(needs)
    exact = [total * (need / whole if whole else 1 / len(needs)) for need in needs]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(needs)), key=lambda i: parts[i] - exact[i])
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts
