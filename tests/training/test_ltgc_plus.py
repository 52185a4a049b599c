"""The parts of ltgc_plus, each on its own: sampling, adjusted logits, photos last, probe, interpolation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers.paths import ROOT
from helpers.training_world import load_tiny

from ltgc.classifier import features as clip_features
from ltgc.classifier import lora, tuning
from ltgc.classifier.network import Classifier
from ltgc.pipeline import params
from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import interpolation, probe
from ltgc.training.loop import train
from ltgc.training.methods import METHODS
from ltgc.training.phases import classification
from ltgc.training.plan import TrainingSet, make_plan
from ltgc.training.priors import source_priors
from ltgc.training.transfer import drawings_weight
from stages.train import main as train_stage

# 3 classes: 70, 20 and 10 photos, 0, 10 and 40 drawings; image k has the colour k, which no crop changes
LABELS = torch.tensor([0] * 70 + [1] * 20 + [2] * 10 + [1] * 10 + [2] * 40)
IMAGES = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 3, 16, 16)
DATA = TrainingSet(IMAGES, LABELS, original=100)
BOTH = METHODS["ltgc_plus"]


def settings(**changes: Any) -> TrainSettings:
    """Of params.yaml, with changes; a mapping changes only its keys."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    for key, value in changes.items():
        section[key] = section[key] | value if isinstance(value, dict) else value
    return TrainSettings.model_validate(section)


def change(root: Path, **changes: Any) -> None:
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["train"] |= changes
    (root / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture
def classifier(clip_name: str) -> Classifier:
    torch.manual_seed(0)
    visual = tuning.apply(load_tiny(clip_name).model.visual, settings())
    return Classifier(visual, F.normalize(torch.randn(3, 24), dim=-1), 20.0)


def test_every_class_is_sampled_as_often_and_where_it_has_both_half_of_it_are_drawings() -> None:
    torch.manual_seed(0)
    sampled = make_plan(BOTH, DATA, settings(steps=200, batch_size=50, generated={"share": 0.5})).i.flatten()
    shares = torch.stack(
        [torch.bincount(LABELS[sampled[d]], minlength=3) for d in (sampled < 100, sampled >= 100)]
    )
    expected = torch.tensor([[1 / 3, 1 / 6, 1 / 6], [0, 1 / 6, 1 / 6]])
    torch.testing.assert_close(shares / 10_000, expected, rtol=0, atol=0.015)
    assert set(sampled.tolist()) == set(range(150))


def test_a_share_of_nothing_leaves_the_drawings_out() -> None:
    torch.manual_seed(0)
    assert make_plan(BOTH, DATA, settings(steps=100, generated={"share": 0.0})).i.max() < 100


def test_the_last_steps_sample_photos_only_and_every_class_as_often() -> None:
    torch.manual_seed(0)
    run = settings(steps=200, batch_size=50, generated={"share": 0.5, "photos_last": 0.3})
    i = make_plan(BOTH, DATA, run).i
    assert (i[:140] >= 100).any(1).all() and (i[140:] < 100).all()
    shares = torch.bincount(LABELS[i[140:].flatten()]) / 3000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_adjusted_logits_of_a_photo_know_how_rare_photos_of_its_class_are_and_drawings_stay_as_they_are(
    classifier: Classifier,
) -> None:
    run = settings(
        steps=2, batch_size=40, warmup_steps=0, generated={"share": 0.5, "adjust": True, "photos_last": 0.5}
    )
    torch.manual_seed(0)
    plan = make_plan(BOTH, DATA, run)
    rows = source_priors(BOTH, DATA, run, 3)
    expected = torch.tensor(
        [[1, 1, 1], [1 / 2, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 3]]
    )  # drawings, photos, last photos
    torch.testing.assert_close(rows.exp(), expected)
    photos = torch.where(plan.i[0] < 100, 1, 0)
    with torch.no_grad():
        logits = classifier(IMAGES[plan.i[0]])
    loss = F.cross_entropy(logits + rows[photos], LABELS[plan.i[0]]).item()
    curve = train(classifier, plan, DATA, run, objective=classification(source_priors=rows))
    assert curve[0]["loss"] == pytest.approx(loss, rel=1e-3)
    assert loss != pytest.approx(F.cross_entropy(logits, LABELS[plan.i[0]]).item(), rel=1e-3)


def test_interpolation_scales_what_the_encoder_has_learned_and_ends_at_zero_shot(classifier: Classifier) -> None:
    start, head = interpolation.weights(classifier), classifier.head.detach().clone()
    original = lora.merge(classifier.visual).state_dict()
    with torch.no_grad():
        for value in (p for p in classifier.parameters() if p.requires_grad):
            value.add_(torch.randn_like(value) / 10)
    end, tuned = interpolation.weights(classifier), lora.merge(classifier.visual).state_dict()
    for alpha in (0.0, 0.4, 1.0):
        interpolation.interpolate(classifier, start, end, alpha)
        for name, value in lora.merge(classifier.visual).state_dict().items():
            between = torch.lerp(original[name].double(), tuned[name].double(), alpha)
            torch.testing.assert_close(value.double(), between, rtol=0, atol=1e-6)
    interpolation.interpolate(classifier, start, end, 0.0)
    assert torch.equal(classifier.head, head)


def test_validation_chooses_alpha_and_the_larger_one_of_equals(classifier: Classifier) -> None:
    start = interpolation.weights(classifier)
    with torch.no_grad():
        classifier.head += 1
    end = interpolation.weights(classifier)

    def alpha_of_weights() -> float:
        return ((classifier.head - start["head"]) / (end["head"] - start["head"])).mean().item()

    accuracy = {0.7: 63.0, 0.3: 63.0, 0.0: 62.0}
    chosen = interpolation.choose(classifier, start, 60.0, lambda: accuracy[round(alpha_of_weights(), 2)])
    assert chosen == (0.7, 63.0) and alpha_of_weights() == pytest.approx(0.7)
    assert interpolation.choose(classifier, start, 70.0, lambda: 50.0) == (1.0, 70.0)


@pytest.mark.parametrize(("kind", "weight"), [("alike", 1.0), ("wrong", 0.0)])
def test_drawings_that_say_nothing_about_the_photos_are_worth_nothing(kind: str, weight: float) -> None:
    torch.manual_seed(0)
    texts = F.normalize(torch.randn(6, 16), dim=-1)

    def images(classes: torch.Tensor) -> torch.Tensor:
        return F.normalize(texts[classes] + 0.3 * torch.randn(len(classes), 16), dim=-1)

    y = torch.arange(120) % 6
    shown = y if kind == "alike" else (y + 1) % 6
    assert drawings_weight((images(y), y), (images(shown), y), texts, 30.0) == weight


def features(texts: torch.Tensor, classes: torch.Tensor, tilt: torch.Tensor | float = 0.0) -> torch.Tensor:
    return F.normalize(texts[classes] + 0.1 * torch.randn(len(classes), texts.shape[1]) + tilt, dim=-1)


def samples(x: torch.Tensor, y: torch.Tensor, prior: torch.Tensor) -> probe.Samples:
    return probe.Samples(x, y, torch.full((len(y),), 1 / len(y)), prior, torch.zeros_like(y))


def test_a_probe_learns_what_the_texts_do_not_know_and_takes_the_prior_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    directions = torch.eye(4, 16)
    y = torch.arange(80) % 4
    x = features(directions, y)
    wrong = directions.roll(1, 0)
    head = probe.train_head(wrong, samples(x, y, torch.zeros(1, 4)), 30.0)
    assert ((x @ head.T).argmax(-1) == y).float().mean() > ((x @ wrong.T).argmax(-1) == y).float().mean()
    torch.testing.assert_close(head.norm(dim=-1), torch.ones(4))
    favoured = torch.tensor([[5.0, 0.0, 0.0, 0.0]])
    adjusted = probe.train_head(directions, samples(x, y, favoured), 30.0)
    plain = probe.train_head(directions, samples(x, y, torch.zeros(1, 4)), 30.0)
    assert (x @ adjusted.T)[:, 0].mean() < (x @ plain.T)[:, 0].mean()
    monkeypatch.setattr(probe, "LOGITS", 4 * 7)  # a large data set is read seven images at a time
    torch.testing.assert_close(probe.train_head(directions, samples(x, y, favoured), 30.0), adjusted)


def test_the_first_head_is_never_worse_on_validation_than_the_one_it_starts_from() -> None:
    torch.manual_seed(0)
    texts = torch.eye(4, 16)
    y = torch.arange(40) % 4
    x = features(texts, y)
    wrong, other = texts.roll(1, 0), texts.roll(2, 0)
    head, place = probe.choose([texts, wrong, other], x, y)
    assert place == 0.0 and torch.equal(head, texts)
    assert 0.5 < probe.choose([wrong, texts], x, y)[1] <= 1.0
    assert 1.5 < probe.choose([wrong, other, texts], x, y)[1] <= 2.0


@pytest.mark.parametrize(("wrong", "helped"), [(40, True), (1, False), (0, False)])
def test_drawings_help_only_where_validation_shows_more_than_chance(wrong: int, helped: bool) -> None:
    texts = torch.eye(2, 4)
    y = torch.arange(200) % 2
    x = texts[y]
    x[:wrong] = torch.tensor([[0.7, 0.9, 1.0, 0.0], [0.9, 0.7, 0.0, 1.0]])[y[:wrong]]  # not what their texts say
    turned = texts + 0.5 * torch.eye(4)[2:]
    assert probe.helps(turned, texts, x, y) == helped
    assert not probe.helps(texts, turned, x, y)


def test_a_run_says_whether_its_drawings_count(
    in_world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = in_world()
    runs = {}
    for helped in (True, False):
        monkeypatch.setattr(probe, "helps", lambda *_, helped=helped: helped)
        (root / "models/ltgc_plus/0/run.json").unlink(missing_ok=True)
        train_stage("ltgc_plus", "0")
        runs[helped] = json.loads((root / "models/ltgc_plus/0/run.json").read_text())
    assert [runs[helped]["drawings_weight"] for helped in (True, False)] == [1.0, 0.0]


def test_the_recipe_says_what_its_drawings_were_worth_and_how_far_from_zero_shot_it_went(
    in_world: Callable[..., Path],
) -> None:
    root = in_world()
    train_stage("ltgc_plus", "0")
    run = json.loads((root / "models/ltgc_plus/0/run.json").read_text())
    assert run["alpha"] in interpolation.ALPHAS and 0 <= run["drawings_weight"] <= 1 and run["steps"] == 12
    train_stage("balanced_photos", "0")
    run = json.loads((root / "models/balanced_photos/0/run.json").read_text())
    assert run["alpha"] in interpolation.ALPHAS and run["drawings_weight"] is None
    assert 0 <= run["head_alpha"] <= 1


@pytest.mark.parametrize("validated", [True, False])
def test_features_that_do_not_fit_in_memory_make_the_same_model_from_a_file(
    in_world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, validated: bool
) -> None:
    root = in_world(head_init="class_means")
    if not validated:  # then the training split says what the drawings are worth
        lines = (root / MANIFEST).read_text().splitlines(keepends=True)
        (root / MANIFEST).write_text("".join(line for line in lines if ",val" not in line))
    train_stage("ltgc_plus", "0")
    in_memory = (root / "models/ltgc_plus/0/head.safetensors").read_bytes()
    shutil.rmtree(root / "models")
    made = []

    class Counted(clip_features.FileFeatures):
        def __init__(self, *arguments: Any) -> None:
            made.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(clip_features, "MEMORY_LIMITS", {"cpu": 0})
    monkeypatch.setattr(clip_features, "FileFeatures", Counted)
    train_stage("ltgc_plus", "0")
    assert made and (root / "models/ltgc_plus/0/head.safetensors").read_bytes() == in_memory


def test_where_a_class_has_no_validation_image_alpha_is_a_safe_constant(
    in_world: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = in_world()
    lines = (root / MANIFEST).read_text().splitlines(keepends=True)
    (root / MANIFEST).write_text("".join(line for line in lines if not (",2," in line and ",val" in line)))
    train_stage("balanced_photos", "0")
    assert json.loads((root / "models/balanced_photos/0/run.json").read_text())["alpha"] == interpolation.SAFE
    assert "1 classes have no validation image: 0.7 is taken" in capsys.readouterr().err


def test_a_methods_own_key_that_train_lacks_is_named(in_world: Callable[..., Path]) -> None:
    root = in_world()
    change(root, own={"ltgc_plus": {"generated": {"shares": 0.5}}})
    with pytest.raises(LTGCError, match=r"own\.ltgc_plus\.generated\.shares: Extra inputs"):
        params.load("train")


def test_a_change_of_one_methods_own_settings_leaves_the_others_runs_as_they_are(
    in_world: Callable[..., Path],
) -> None:
    root = in_world()
    values = yaml.safe_load((root / "params.yaml").read_text())["train"]["own"]
    keys = []
    for factor in (1.0, 2.0):
        change(root, own=values | {"ltgc_plus": {"steps_factor": factor}})
        for method in ("ltgc_plus", "clip_zero_shot"):
            train_stage(method, "0")
            keys.append(json.loads((root / f"models/{method}/0/run.json").read_text())["key"])
    assert keys[0] != keys[2] and keys[1] == keys[3]
