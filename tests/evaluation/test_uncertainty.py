"""Margins of differences: what training seeds and test images add, and what is too small to see."""

import numpy as np
import pytest

from ltgc.evaluation.uncertainty import detectable, image_std, margin
from ltgc.pipeline.artifacts.runs import ClassAccuracy

CLASSES = [
    ClassAccuracy(label=0, class_name="poppy", train=150, shot="many", accuracy=0.0),
    ClassAccuracy(label=1, class_name="daisy", train=5, shot="few", accuracy=0.0),
]
LABELS = np.repeat([0, 1], 50)


def right(head: int, tail: int) -> np.ndarray:
    """One seed that is right on the first `head` and `tail` of the 50 images of the two classes."""
    return np.concatenate([np.arange(50) < head, np.arange(50) < tail])[None]


def test_test_images_add_what_sampling_them_would() -> None:
    runs = {"control": right(50, 0), "ours": right(50, 20)}
    std = image_std(runs, LABELS, CLASSES, "control")["ours"]
    binomial = 100 * (0.4 * 0.6 / 50) ** 0.5
    assert std["few"] == pytest.approx(binomial, rel=0.08)
    assert std["all"] == pytest.approx(binomial / 2, rel=0.08)
    assert std["many"] == 0  # right on the same images
    assert set(std) == {"all", "many", "few", "harmonic_mean", "worst_class"}


def test_methods_that_err_on_the_same_images_differ_more_surely_than_methods_that_err_on_others() -> None:
    others = 1 - right(25, 25)
    runs = {"control": right(25, 25), "same": right(30, 30), "others": others.astype(bool)}
    std = image_std(runs, LABELS, CLASSES, "control")
    assert std["same"]["all"] < std["others"]["all"] / 2


def test_the_mean_over_seeds_is_what_is_resampled() -> None:
    seeds = np.concatenate([right(0, 20), right(0, 0)])
    runs = {"control": np.zeros_like(seeds), "ours": seeds}
    one = image_std({"control": right(0, 0), "ours": right(0, 20)}, LABELS, CLASSES, "control")["ours"]["few"]
    assert image_std(runs, LABELS, CLASSES, "control")["ours"]["few"] == pytest.approx(one / 2, rel=0.05)


@pytest.mark.parametrize(
    ("std", "seeds", "images", "expected"),
    # t(0.975) is 12.71, 4.30 and 2.78 with 1, 2 and 4 degrees of freedom, and 1.96 without end.
    [
        (1.0, 2, 0.0, 12.71 / 2**0.5),
        (1.0, 3, 0.0, 4.30 / 3**0.5),
        (1.0, 5, 0.0, 2.78 / 5**0.5),
        (0.0, 3, 1.0, 1.96),
        (0.0, 3, 0.0, 0.0),
    ],
)
def test_the_margin_is_the_t_interval_over_seeds_and_widens_by_the_test_images(
    std: float, seeds: int, images: float, expected: float
) -> None:
    assert margin(std, seeds, images) == pytest.approx(expected, rel=0.002)
    assert margin(std, 1, images) is None


def test_what_is_said_to_be_detectable_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    true = detectable([1.96])
    assert true == pytest.approx(1.96 + 0.84, abs=0.01)
    assert np.mean(rng.normal(true, 1, 20_000) > 1.96) == pytest.approx(0.8, abs=0.01)
