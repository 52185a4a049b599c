"""The losses: values worked out by hand from their papers' equations, soft targets, and the class prior."""

from functools import partial
from math import log, sqrt
from typing import Any, get_args

import pytest
import torch
import yaml
from helpers.paths import ROOT
from torch import Tensor

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import losses

# Softmax of these: 1/2, 1/4, 1/4.
LOGITS = torch.tensor([[log(4), log(2), log(2)]])
PRIOR = torch.tensor([0.5, 0.25, 0.25])
COUNTS = torch.tensor([1, 16, 16])
CLASSES = losses.Classes(prior=PRIOR, counts=COUNTS, logit_scale=3.0)
NAMES = list(losses.LOSSES)


def settings(loss: str, **values: float) -> TrainSettings:
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    section["loss_settings"] |= values
    return TrainSettings.model_validate(section | {"loss": loss})


def make(loss: str, classes: losses.Classes = CLASSES, **values: Any) -> losses.Loss:
    return losses.make(settings(loss, **values), classes, soft_targets=False)


def test_every_loss_of_params_has_an_entry_in_the_table() -> None:
    assert list(get_args(TrainSettings.model_fields["loss"].annotation)) == NAMES


@pytest.mark.parametrize(
    ("loss", "label", "expected"),
    [
        (make("cross_entropy"), 0, log(2)),
        # π e^z = 2, 1/2, 1/2: p = 1/6
        (make("balanced_softmax"), 2, log(6)),
        # π² e^z = 1, 1/8, 1/8: p = 1/10
        (make("logit_adjusted", tau=2.0), 1, log(10)),
        # (1 - 1/2)² and (1 - 1/4)²
        (make("focal", gamma=2.0), 0, log(2) / 4),
        (make("focal", gamma=2.0), 1, 9 / 16 * log(4)),
        # n^(-1/4) = 1, 1/2, 1/2: e^z loses e^Δ = 2 and sqrt(2)
        (partial(losses.ldam, counts=COUNTS, max_margin=log(2), logit_scale=1.0), 0, log(3)),
        (
            partial(losses.ldam, counts=COUNTS, max_margin=log(2), logit_scale=1.0),
            1,
            -log(sqrt(2) / (6 + sqrt(2))),
        ),
        # the same with the margin in cosine, at the head's scale
        (make("ldam", max_margin=log(2) / 3), 0, log(3)),
        # E = 1, 3/2, 3/2 at β = 1/2; weights 1 : 2/3 : 2/3 that sum to 3
        (partial(losses.class_balanced, counts=torch.tensor([1, 2, 2]), beta=0.5), 0, 9 / 7 * log(2)),
        (partial(losses.class_balanced, counts=torch.tensor([1, 2, 2]), beta=0.5), 2, 6 / 7 * log(4)),
    ],
)
def test_a_loss_has_the_value_that_its_equation_gives_by_hand(
    loss: losses.Loss, label: int, expected: float
) -> None:
    assert loss(LOGITS, torch.tensor([label])).item() == pytest.approx(expected, rel=1e-5)


def test_lade_has_the_value_that_its_equations_give_by_hand() -> None:
    logits, labels = torch.tensor([[log(2), 0.0], [0.0, log(2)]]), torch.tensor([0, 1])
    prior = torch.tensor([0.75, 0.25])
    # p_u / π = 2/3 for the first image and 2 for the second.
    e_0, e_1 = (2 / 3 * 2 + 2 * 1) / 2, (2 / 3 * 1 + 2 * 2) / 2
    lader = 0.75 * (-log(2) + log(e_0) + 0.3 * log(e_0) ** 2) + 0.25 * (-log(2) + log(e_1) + 0.3 * log(e_1) ** 2)
    adjusted = (-log(1.5 / 1.75) - log(0.5 / 1.25)) / 2
    value = losses.lade(logits, labels, prior, alpha=0.2, lam=0.3)
    assert value.item() == pytest.approx(adjusted + 0.2 * lader, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("lade", "ldam")])
def test_a_soft_target_costs_the_mean_of_its_classes_weighted_by_their_shares(name: str) -> None:
    loss, shares = make(name), [0.5, 0.2, 0.3]
    each = [loss(LOGITS, torch.tensor([label])).item() for label in range(3)]
    expected = sum(share * value for share, value in zip(shares, each, strict=True))
    assert loss(LOGITS, torch.tensor([shares])).item() == pytest.approx(expected, rel=1e-5)
    weighted = loss(LOGITS, torch.tensor([shares]) / 4)  # a label that counts a quarter
    assert weighted.item() == pytest.approx(expected / 4, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ldam"])
def test_one_hot_soft_targets_cost_what_labels_cost(name: str) -> None:
    logits, labels = (
        torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 1, 2, 0, 0]),
    )
    loss = make(name)
    torch.testing.assert_close(loss(logits, torch.eye(3)[labels]), loss(logits, labels))


def test_half_an_image_of_a_class_is_half_an_image_in_lades_estimates() -> None:
    logits, prior = torch.tensor([[log(2), 0.0], [0.0, log(2)]]), torch.tensor([0.5, 0.5])
    mixed = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    mean_0, mean_1 = log(2), (0 + log(2)) / 1.5 - 0.5 * 0 / 1.5  # z_1 is 0 of half an image, log 2 of a whole one
    e = (2 + 1) / 2
    lader = 0.5 * (2 * log(e) - mean_0 - mean_1)
    adjusted = losses.balanced_softmax(logits, mixed, prior).item()
    assert losses.lade(logits, mixed, prior, alpha=1.0, lam=0.0).item() == pytest.approx(
        adjusted + lader, rel=1e-5
    )


def test_ldam_refuses_a_run_with_soft_targets_and_says_what_to_do() -> None:
    with pytest.raises(LTGCError, match=r"train\.loss: ldam has no soft targets.*another loss"):
        losses.make(settings("ldam"), CLASSES, soft_targets=True)


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjusted", "class_balanced"])
def test_where_sampling_is_even_nothing_is_left_to_correct(name: str) -> None:
    even = losses.Classes(prior=torch.full((3,), 1 / 3), counts=COUNTS, logit_scale=3.0)
    labels = torch.tensor([2])
    torch.testing.assert_close(make(name, even)(LOGITS, labels), make("cross_entropy")(LOGITS, labels))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_class_that_never_comes_and_sure_predictions_leave_losses_and_gradients_finite(
    name: str, scale: float
) -> None:
    absent = losses.Classes(torch.tensor([0.9, 0.1, 0.0]), torch.tensor([9, 1, 0]), logit_scale=scale)
    logits = (scale * torch.tensor([[1.0, -1.0, 0.5], [0.2, 0.9, -0.3]])).requires_grad_()
    targets: list[Tensor] = [torch.tensor([0, 1])]
    if name != "ldam":
        targets.append(torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]]))
    for target in targets:
        value = make(name, absent, gamma=0.5)(logits, target)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite() and gradient.isfinite().all()
