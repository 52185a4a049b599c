"""Test metrics of one run: top-1, shot groups, harmonic mean, worst class and calibration (§4.1), in percent."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from ltgc.pipeline.artifacts.dataset import ClassRecord, ShotGroup
from ltgc.pipeline.artifacts.runs import RunMetrics
from ltgc.pipeline.errors import LTGCError


def per_class_accuracy(predicted: Tensor, labels: Tensor, classes: Sequence[ClassRecord]) -> Tensor:
    """Accuracy of each class, (C,) float32 in [0, 1]. predicted, labels: (N,) int64.

    Raises LTGCError naming a class without a test image: it has no accuracy, and leaving it out would flatter.
    """
    images = torch.bincount(labels, minlength=len(classes))
    missing = (images == 0).nonzero().flatten().tolist()
    if missing:
        raise LTGCError(f"class {classes[missing[0]].name!r} has no test image; add one or remove the class")
    # torchmetrics counts in a matrix of classes by classes, which is 530 MB for iNaturalist 2018.
    return torch.bincount(labels[predicted == labels], minlength=len(classes)) / images


def run_metrics(
    confidences: Tensor, predicted: Tensor, labels: Tensor, classes: Sequence[ClassRecord]
) -> RunMetrics:
    """The metrics of one run. confidences: (N,) float, of what is predicted; predicted, labels: (N,) int64.

    classes: by label.
    """
    accuracy = per_class_accuracy(predicted, labels, classes)
    # 1 / 0 is inf, and C / inf is 0: one class that is never right makes the harmonic mean 0.
    harmonic_mean = len(classes) / (1 / accuracy.double()).sum()
    # Calibration looks at the largest probability alone: here that of two classes, "as predicted" and "another".
    as_predicted = torch.stack([confidences, torch.zeros_like(confidences)], dim=1)
    wrong = (predicted != labels).long()
    ece = multiclass_calibration_error(as_predicted, wrong, num_classes=2, n_bins=15, norm="l1")

    def group(shot: ShotGroup) -> float | None:
        members = accuracy[[c.label for c in classes if c.shot == shot]]
        return percent(members.mean()) if len(members) else None

    return RunMetrics(
        all=percent(multiclass_accuracy(predicted, labels, num_classes=len(classes), average="micro")),
        many=group("many"),
        medium=group("medium"),
        few=group("few"),
        harmonic_mean=percent(harmonic_mean),
        worst_class=percent(accuracy.min()),
        ece=percent(ece),
    )


def percent(fraction: Tensor) -> float:
    """In percent with two decimals: finer than one test image of 5,000."""
    return round(100 * float(fraction), 2)
