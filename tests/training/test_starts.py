"""DA-Fusion and DisCL: methods that are trained on drawings that start from photos."""

from collections.abc import Callable
from pathlib import Path

import torch
from helpers.paths import ROOT

from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.runs import Run
from ltgc.training.methods import METHODS
from ltgc.training.plan import TrainingSet, make_plan
from ltgc.training.priors import image_shares
from stages.train import main as train_stage

TRAIN = params.load("train", path=ROOT / "params.yaml").train
# 2 classes of 6 and 2 photos; the second has 3 drawings of strength 0.5, 3 of 0.9 and 3 of 0.7
STRENGTHS = torch.tensor([0.0] * 8 + [0.5, 0.9, 0.7] * 3)
LABELS = torch.tensor([0] * 6 + [1] * 11)
DATA = TrainingSet(torch.zeros(17, 3, 8, 8, dtype=torch.uint8), LABELS, original=8, strengths=STRENGTHS)


def test_da_fusion_is_the_control_but_that_half_of_a_class_are_drawings() -> None:
    control, method = TRAIN.of("balanced_photos"), TRAIN.of("da_fusion")
    assert method == control.model_copy(update={"generated": control.generated.model_copy(update={"share": 0.5})})
    shares = image_shares(METHODS["da_fusion"], DATA, method)
    torch.testing.assert_close(shares[:6].sum(), torch.tensor(0.5))  # a class without drawings: its photos
    torch.testing.assert_close(shares[6:8], torch.full((2,), 0.25 / 2))
    torch.testing.assert_close(shares[8:], torch.full((9,), 0.25 / 9))


def test_the_curriculum_goes_from_the_strongest_drawings_to_the_weakest_and_to_photos_alone() -> None:
    run = TRAIN.of("discl").model_copy(update={"steps": 100, "batch_size": 64})
    torch.manual_seed(0)
    sampled = make_plan(METHODS["discl"], DATA, run).i
    for strength, steps in zip((0.9, 0.7, 0.5), (slice(0, 23), slice(23, 46), slice(46, 69)), strict=True):
        found = sampled[steps].flatten()
        drawings = found[found >= 8]
        assert set(STRENGTHS[drawings].tolist()) == {torch.tensor(strength).item()}
        assert 0.45 < (LABELS[found] == 1).float().mean() < 0.55
        share = len(drawings) / (LABELS[found] == 1).sum()
        assert 0.65 < share < 0.75
    assert sampled[69:].max() < 8


def test_without_such_drawings_both_are_skipped_and_say_what_they_need(in_world: Callable[..., Path]) -> None:
    root = in_world()
    for method in ("da_fusion", "discl"):
        train_stage(method, "0")
        run = files.read_record(root / f"models/{method}/0/run.json", Run)
        assert run.skipped and "t2i.start_strengths" in run.skipped
