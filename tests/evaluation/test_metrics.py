"""Test metrics against values worked out by hand."""

import pytest
import torch

from ltgc.evaluation import metrics
from ltgc.pipeline.artifacts.dataset import ClassRecord, ShotGroup
from ltgc.pipeline.errors import LTGCError


def classes(*shots: ShotGroup) -> list[ClassRecord]:
    return [
        ClassRecord(label=i, name=f"class {i}", slug=f"{i:04d}", train=1, val=0, test=1, shot=shot)
        for i, shot in enumerate(shots)
    ]


def certain(predictions: list[int], confidence: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences and labels."""
    return torch.full((len(predictions),), confidence), torch.tensor(predictions)


# Accuracies: class 0 3/4, class 1 1/1, class 2 1/2, class 3 1/5. Right: 6 of 12.
LABELS = torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3])
PREDICTIONS = [0, 0, 0, 1, 1, 2, 0, 3, 0, 0, 1, 2]


def test_metrics_are_what_one_works_out_by_hand() -> None:
    run = metrics.run_metrics(*certain(PREDICTIONS, 0.7), LABELS, classes("many", "medium", "few", "few"))
    assert run.all == 50.0  # of images, not of classes: those would give 61.25
    assert run.many == 75.0
    assert run.medium == 100.0
    assert run.few == 35.0
    assert run.harmonic_mean == 42.86  # 4 / (4/3 + 1 + 2 + 5) = 3/7
    assert run.worst_class == 20.0
    assert run.ece == 20.0  # 70 % sure and 50 % right


def test_calibration_error_is_weighted_over_fifteen_bins() -> None:
    # 0.82 and 0.88 share one of ten bins, but not one of fifteen: there too little and too much do not cancel.
    confidences, predicted = torch.tensor([0.82] * 2 + [0.88] * 4), torch.tensor([0, 0, 1, 1, 1, 1])
    labels = torch.tensor([0, 0, 1, 0, 1, 0])
    # 2 of 6 images: |0.82 - 1|; 4 of 6: |0.88 - 0.5|
    assert metrics.run_metrics(confidences, predicted, labels, classes("many", "few")).ece == 31.33


def test_a_class_that_is_never_right_makes_the_harmonic_mean_and_worst_class_zero() -> None:
    run = metrics.run_metrics(*certain([0, 0]), torch.tensor([0, 1]), classes("many", "few"))
    assert (run.harmonic_mean, run.worst_class, run.all) == (0.0, 0.0, 50.0)


def test_a_shot_group_without_classes_has_no_accuracy() -> None:
    run = metrics.run_metrics(*certain([0, 1]), torch.tensor([0, 1]), classes("few", "few"))
    assert (run.many, run.medium, run.few) == (None, None, 100.0)


def test_a_class_without_test_image_is_named() -> None:
    with pytest.raises(LTGCError, match="'class 1' has no test image"):
        metrics.run_metrics(*certain([0, 2]), torch.tensor([0, 2]), classes("few", "few", "few"))
