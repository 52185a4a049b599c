"""What a trained classifier predicts for images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.classifier import devices
from ltgc.classifier.network import Classifier
from ltgc.clip.pixels import Pixels, Request, batches
from ltgc.pipeline import timing

# LIFT's test-time ensembling: images of 224 px enlarged by 24 px, cut into five crops of 224 px.
ENLARGED_BY = 24 / 224


class Predicted(NamedTuple):
    """What a classifier says of N images, on the CPU."""

    confidences: Tensor  # (N,) float32, the probability of the predicted class
    labels: Tensor  # (N,) int64


@torch.inference_mode()
def predict(
    classifier: Classifier, pixels: Pixels, batch_size: int, ensemble: bool = False, workers: int = 0
) -> Predicted:
    """The likeliest class of all images in order. ensemble: over five crops.

    Where several processes run, each computes its share, and each gets all. workers: as of `pixels.batches`.
    The probabilities of all classes are not kept: 24,426 images of iNaturalist and 8,142 classes are 800 MB.
    """
    logits = ensembled if ensemble else Classifier.__call__
    requests: list[Request] = [(i, None) for i in devices.share(len(pixels)).split(batch_size) if len(i)]
    confidences = [torch.zeros(0, device=classifier.device)]
    labels = [torch.zeros(0, dtype=torch.int64, device=classifier.device)]
    with timing.steps:
        for images in batches(pixels, requests, classifier.device, workers):
            confidence, label = logits(classifier, images).softmax(-1).max(-1)
            confidences.append(confidence)
            labels.append(label)
        all_confidences, all_labels = (devices.gather(torch.cat(x), len(pixels)) for x in (confidences, labels))
        return Predicted(all_confidences.cpu(), all_labels.cpu())


def ensembled(classifier: Classifier, pixels: Tensor) -> Tensor:
    """Test-time ensembling (Shi et al. 2024): the mean logits (B, C) of five crops, the corners and the centre.

    pixels: (B, 3, H, W) in [0, 255]. They are enlarged by ENLARGED_BY and cut back to H x W.
    """
    height, width = pixels.shape[-2:]
    down, right = (round(side * ENLARGED_BY) for side in (height, width))
    larger = F.interpolate(pixels.float(), (height + down, width + right), mode="bicubic").clamp(0, 255)
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [larger[..., top : top + height, left : left + width] for top, left in corners]
    return torch.stack([classifier(crop) for crop in crops]).mean(0)


def class_mean_accuracy(
    classifier: Classifier, pixels: Pixels, labels: Tensor, batch_size: int, workers: int = 0
) -> float | None:
    """The mean accuracy of the classes that have images, in percent with two decimals; None without images.

    What a method or a setting is chosen by: a validation split that is long-tailed itself would favour the head.
    labels: (N,) int64.
    """
    if not len(labels):
        return None
    correct = predict(classifier, pixels, batch_size, workers=workers).labels == labels
    images = labels.bincount()
    accuracies = labels.bincount(correct.double()) / images  # (C,), not a number where there are no images
    return round(100 * accuracies[images > 0].mean().item(), 2)
