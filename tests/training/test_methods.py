"""Methods and heads: a recipe's own settings, what the head starts from, and test-time ensembling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers.paths import ROOT
from helpers.training_world import COUNTS, NAMES, descriptions

from ltgc.classifier.inference import ensembled, predict
from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip import pixels
from ltgc.clip.encoder import Clip
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import MANIFEST, class_slug
from ltgc.pipeline.artifacts.runs import Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS, Method, TrainSettings
from ltgc.training.methods import METHODS
from stages.evaluate import main as evaluate_stage
from stages.train import main as train_stage


@pytest.fixture
def root(in_world: Callable[..., Path]) -> Path:
    return in_world()


def change(root: Path, section: str, **values: Any) -> None:
    content = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    content[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def head_of(root: Path, model: Clip, method: str = "clip_zero_shot") -> torch.Tensor:
    return load_classifier(root / f"models/{method}/0", model).head


@pytest.mark.parametrize("lift", ["lift", "lift_plus"])
def test_a_lift_pair_differs_in_what_it_draws_and_in_nothing_else(lift: Method) -> None:
    ltgc_lift = cast(Method, f"ltgc_{lift}")
    alone, mixed, balancemix = METHODS[lift], METHODS[ltgc_lift], METHODS["balancemix"]
    own = params.load("train", path=ROOT / "params.yaml").train
    assert own.of(lift) == own.of(ltgc_lift) != own.of("balancemix")
    assert (mixed.i, mixed.j) == (balancemix.i, balancemix.j)
    assert alone.i and (alone.i.data, alone.j) == ("original", None)
    assert (own.of(lift).crops == "decaying") == (lift == "lift_plus")


def test_methods_without_drawings_are_those_that_sample_none() -> None:
    sampled = {name: {s.data for s in (recipe.i, recipe.j) if s} for name, recipe in METHODS.items()}
    assert {name for name, data in sampled.items() if data <= {"original"}} == set(WITHOUT_DRAWINGS)


def test_a_methods_own_settings_go_before_the_common_ones() -> None:
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    train = TrainSettings.model_validate(section | {"head": "linear", "loss": "focal", "steps": 7})
    assert train.of("clip_finetune") == train.model_copy(update={"own": {}})
    own = train.of("lift")
    assert (own.tuning, own.head, own.head_init) == ("adaptformer", "cosine", "templates")
    assert (own.loss, own.logit_scale, own.steps) == ("logit_adjusted", 25.0, 7)


def test_lift_trains_what_its_recipe_says(root: Path, model: Clip) -> None:
    train_stage("lift", "0")
    saved = {path.name for path in (root / "models/lift/0").iterdir()}
    assert saved == {"run.json", "head.safetensors", "adaptformer.safetensors"}
    assert load_classifier(root / "models/lift/0", model).logit_scale == 25.0


def test_test_time_ensembling_is_the_mean_of_the_logits_of_five_crops(model: Clip) -> None:
    network = Classifier(model.model.visual, torch.randn(3, 24), 20.0).eval()
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    larger = F.interpolate(images.float(), (18, 18), mode="bicubic").clamp(0, 255)  # 16 * 248 / 224 = 17.7
    crops = [larger[:, :, y : y + 16, x : x + 16] for y, x in [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]]
    expected = sum(network(crop) for crop in crops) / 5
    torch.testing.assert_close(ensembled(network, images), expected)
    confidences, labels = expected.softmax(1).max(1)
    found = predict(network, images, batch_size=1, ensemble=True)
    torch.testing.assert_close(found.confidences, confidences)
    assert torch.equal(found.labels, labels)


def test_the_switch_ensembles_every_method(root: Path) -> None:
    for seed in "01":
        train_stage("clip_zero_shot", seed)
    evaluate_stage("clip_zero_shot")
    before = (root / "predictions/clip_zero_shot/0.csv").read_text()
    change(root, "evaluate", ensemble=True)
    evaluate_stage("clip_zero_shot")
    assert (root / "predictions/clip_zero_shot/0.csv").read_text() != before


# --- heads ----------------------------------------------------------------------------------------------


def test_a_head_of_descriptions_is_their_mean_and_the_template_where_there_are_none(
    root: Path, model: Clip
) -> None:
    change(root, "train", head_init="descriptions")
    descriptions(root, [(2, "blue bells in snow", True), (2, None, False)], ["a blue bell by a pond", "bells"])
    train_stage("clip_zero_shot", "0")
    head = head_of(root, model)
    kept = model.text_features(["blue bells in snow", "a blue bell by a pond", "bells"])
    torch.testing.assert_close(head[2], F.normalize(kept.mean(0), dim=0))
    template = model.text_features([f"A photo of the class {NAMES[0]} with petal number 0"])
    torch.testing.assert_close(head[:1], template)


def test_a_head_of_class_means_is_the_direction_of_the_mean_photo(root: Path, model: Clip) -> None:
    change(root, "train", head_init="class_means")
    train_stage("clip_zero_shot", "0")
    head = head_of(root, model)
    network = Classifier(model.model.visual, head, 1.0)
    slug = class_slug(2, NAMES[2])
    photos = pixels.load([root / f"photos/{slug}/train-{k}.png" for k in range(COUNTS[2][0])], model)
    expected = F.normalize(network.features(photos[torch.arange(4)]).mean(0), dim=0)
    torch.testing.assert_close(head[2], expected.detach())


def test_class_means_need_a_photo_of_each_class(root: Path) -> None:
    change(root, "train", head_init="class_means")
    lines = (root / MANIFEST).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ("green fern" in line and ",train," in line)]
    (root / MANIFEST).write_text("".join(kept))
    with pytest.raises(LTGCError, match=r"train\.head_init: class_means.*'green fern' has none"):
        train_stage("clip_zero_shot", "0")


def test_a_random_head_is_unit_vectors_of_the_seed(root: Path, model: Clip) -> None:
    change(root, "train", head_init="random")
    heads = []
    for _ in range(2):
        train_stage("clip_zero_shot", "0")
        heads.append(head_of(root, model))
    train_stage("clip_zero_shot", "1")
    other = load_classifier(root / "models/clip_zero_shot/1", model).head
    assert torch.equal(heads[0], heads[1]) and not torch.allclose(heads[0], other)
    torch.testing.assert_close(heads[0].norm(dim=1), torch.ones(3))


def test_a_linear_head_starts_at_the_cosine_heads_logits_and_learns_its_length_and_bias(
    root: Path, model: Clip
) -> None:
    change(root, "train", head="linear", lr=0.01)
    for method in ("clip_zero_shot", "clip_finetune"):
        train_stage(method, "0")
    start, trained = (load_classifier(root / f"models/{m}/0", model) for m in ("clip_zero_shot", "clip_finetune"))
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    assert start.bias is not None and trained.bias is not None
    cosine = Classifier(start.visual, start.head, start.logit_scale)
    torch.testing.assert_close(start(images), cosine(images).detach())
    assert start.bias.abs().max() == 0 < trained.bias.abs().max()
    assert (trained.head.norm(dim=1) - 1).abs().max() > 1e-3


def test_a_loss_without_soft_targets_is_refused_where_a_method_mixes(root: Path) -> None:
    change(root, "train", loss="ldam")
    train_stage("clip_finetune", "0")
    with pytest.raises(LTGCError, match=r"train\.loss: ldam"):
        train_stage("balancemix", "0")


def test_a_limit_that_leaves_no_drawing_is_an_error_and_one_that_leaves_some_is_kept_to(root: Path) -> None:
    generated = yaml.safe_load((root / "params.yaml").read_text())["train"]["generated"]
    change(root, "train", generated=generated | {"per_class": 4})  # class 2 has 4 photos
    with pytest.raises(LTGCError, match=r"train\.generated\.per_class: leaves no generated image"):
        train_stage("balancemix", "0")
    change(root, "train", generated=generated | {"per_class": 6})
    train_stage("balancemix", "0")
    assert files.read_record(root / "models/balancemix/0/run.json", Run).generated == 2
