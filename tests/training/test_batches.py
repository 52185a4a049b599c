"""The plan of a run: its options, and the class prior against what a run really draws."""

from dataclasses import fields
from typing import Any

import pytest
import torch
import yaml
from helpers.paths import ROOT

from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training.batches import batch
from ltgc.training.inputs import keep_generated
from ltgc.training.methods import METHODS
from ltgc.training.plan import Plan, TrainingSet, make_plan
from ltgc.training.priors import class_counts, class_prior

# 3 classes: 70, 20 and 10 photos, 0, 10 and 40 drawings
LABELS = torch.tensor([0] * 70 + [1] * 20 + [2] * 10 + [1] * 10 + [2] * 40)
DATA = TrainingSet(torch.zeros(150, 3, 8, 8, dtype=torch.uint8), LABELS, original=100)
TRAINED = [method for method, recipe in METHODS.items() if recipe.i]


def settings(**changes: Any) -> TrainSettings:
    """Of params.yaml, with changes; a mapping changes only its keys."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    for key, value in changes.items():
        section[key] = section[key] | value if isinstance(value, dict) else value
    return TrainSettings.model_validate(section)


def plan(method: Method, run: TrainSettings) -> Plan:
    torch.manual_seed(0)
    return make_plan(METHODS[method], DATA, run)


OPTIONS: list[dict[str, Any]] = [
    {"generated": {"weight": 0.25}, "beta": [2.0, 1.0]},
    {"mixing": {"kind": "cutmix", "balanced": "both", "unmixed": 0.3, "warm_down": 20}, "beta": [1.0, 3.0]},
    {"mixing": {"balanced": "none"}},
    {"generated": {"share": 0.25, "photos_last": 0.3, "weight": 0.5}},
]


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=["default", "weighted", "cutmix", "unbalanced", "shared"])
def test_the_class_prior_is_the_share_of_each_class_in_what_a_run_draws(
    method: Method, options: dict[str, Any]
) -> None:
    run = settings(steps=200, batch_size=100, **options)
    drawn = plan(method, run)
    images = torch.zeros(len(drawn.indices(0)), 3, 8, 8)
    total = torch.zeros(3)
    for step in range(run.steps):
        _, targets = batch(drawn, step, images, LABELS, classes=3)
        total += targets.sum(0) if targets.is_floating_point() else torch.bincount(targets, minlength=3)
    prior = class_prior(METHODS[method], DATA, run, classes=3)
    torch.testing.assert_close(prior.sum(), torch.tensor(1.0))
    torch.testing.assert_close(total / total.sum(), prior, rtol=0, atol=0.012)  # 20,000 draws


def test_a_cutmix_batch_has_each_label_by_the_share_of_its_pixels() -> None:
    drawn = plan("balancemix", settings(steps=1, batch_size=60, mixing={"kind": "cutmix"}))
    images = torch.cat([torch.zeros(60, 3, 16, 16), torch.ones(60, 3, 16, 16)])
    mixed, targets = batch(drawn, 0, images, torch.tensor([0] * 100 + [1] * 50), classes=2)
    torch.testing.assert_close(targets[:, 1], mixed.mean((1, 2, 3)))
    assert len(targets[:, 1].unique()) > 15


def test_class_counts_are_of_the_data_that_a_method_draws_from() -> None:
    assert class_counts(METHODS["lift"], DATA, 4).tolist() == [70, 20, 10, 0]
    assert class_counts(METHODS["balancemix"], DATA, 4).tolist() == [70, 30, 50, 0]
    assert class_counts(METHODS["mixup"], DATA, 4).tolist() == [70, 30, 50, 0]


def test_what_is_not_asked_for_draws_no_random_number() -> None:
    plain = plan("balancemix", settings(steps=5, batch_size=6))
    extra = plan(
        "balancemix", settings(steps=5, batch_size=6, generated={"weight": 0.5}, mixing={"kind": "cutmix"})
    )
    assert plain.corner is plain.weight is plain.source is None
    for name in {f.name for f in fields(Plan)} - {"corner", "weight", "source"}:
        assert torch.equal(getattr(plain, name), getattr(extra, name)), name
    assert extra.corner is not None and extra.corner.shape == (5, 6, 2)
    after = torch.rand(3)
    plan("balancemix", settings(steps=5, batch_size=6))
    assert not torch.equal(torch.rand(3), after)  # CutMix's corners came last


def test_unmixed_steps_hold_one_whole_image_of_each_pair() -> None:
    lam = plan("balancemix", settings(steps=400, batch_size=50, mixing={"unmixed": 0.25}, beta=[3.0, 1.0])).lam
    assert lam is not None
    whole = ((lam == 0) | (lam == 1)).all(1)
    assert 0.18 < whole.float().mean() < 0.32
    assert lam[whole].mean().item() == pytest.approx(0.75, abs=0.03)  # x_i as often as it counts when mixed
    assert ((lam[~whole] > 0) & (lam[~whole] < 1)).float().mean() > 0.999


def test_the_warm_down_mixes_nothing_in_the_last_steps_and_all_before() -> None:
    lam = plan("mixup", settings(steps=30, batch_size=50, mixing={"warm_down": 4})).lam
    assert lam is not None
    whole = ((lam == 0) | (lam == 1)).all(1)
    assert whole.tolist() == [False] * 26 + [True] * 4
    assert plan("mixup", settings(steps=3, mixing={"warm_down": 9})).lam.unique().tolist() == [0, 1]  # type: ignore[union-attr]


def test_drawings_count_by_their_weight_and_photos_by_one() -> None:
    run = settings(steps=1, batch_size=150, generated={"weight": 0.25})
    drawn = plan("balanced_sample", run)
    _, targets = batch(drawn, 0, torch.zeros(150, 3, 8, 8), LABELS, classes=3)
    generated = drawn.i[0] >= 100
    assert generated.any() and not generated.all()
    assert torch.equal(targets.sum(1), torch.where(generated, 0.25, 1.0))
    assert torch.equal(targets.argmax(1), LABELS[drawn.i[0]])

    drawn = plan("balancemix", run)
    _, targets = batch(drawn, 0, torch.zeros(300, 3, 8, 8), LABELS, classes=3)
    assert drawn.lam is not None
    torch.testing.assert_close(targets.sum(1), drawn.lam[0] + 0.25 * (1 - drawn.lam[0]))


@pytest.mark.parametrize(
    ("per_class", "kept"),
    [(None, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 2, 3, 4]), ("head", [0, 1, 2, 3, 4, 5]), (1, [2])],
)
def test_drawings_fill_a_class_up_to_a_number_or_to_the_head_in_their_order(
    per_class: Any, kept: list[int]
) -> None:
    run = settings(generated={"per_class": per_class})
    assert keep_generated([1, 1, 2, 2, 2, 1, 1], [5, 2, 0], run.generated) == kept  # labels; photos of each class


@pytest.mark.parametrize(
    ("balanced", "even_i", "even_j"),
    [("original", True, False), ("generated", False, True), ("both", True, True), ("none", False, False)],
)
def test_params_say_which_sides_of_balancemix_are_class_balanced(
    balanced: str, even_i: bool, even_j: bool
) -> None:
    drawn = plan("balancemix", settings(steps=100, batch_size=100, mixing={"balanced": balanced}))
    assert drawn.j is not None
    for indices, even, shares, natural in (
        (drawn.i, even_i, [1 / 3] * 3, [0.7, 0.2, 0.1]),
        (drawn.j, even_j, [0, 0.5, 0.5], [0, 0.2, 0.8]),
    ):
        found = torch.bincount(LABELS[indices].flatten(), minlength=3) / 10_000
        torch.testing.assert_close(found, torch.tensor(shares if even else natural), rtol=0, atol=0.02)
