"""Training: what each method draws, the loop, and the stage from artifacts to a saved model."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from helpers.training_world import COUNTS, NAMES, load_tiny
from PIL import Image
from safetensors.torch import load

from ltgc.classifier import tuning
from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip import crops, pixels
from ltgc.clip.encoder import Clip
from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.pipeline.artifacts.descriptions import TEMPLATES
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training.batches import batch
from ltgc.training.loop import Monitor, learning_rate, train
from ltgc.training.methods import METHODS
from ltgc.training.plan import Plan, TrainingSet, make_plan
from stages.train import main as train_stage

# By method: where x_i comes from, whether its classes are balanced (0.5: half way, by square roots), and where x_j
# comes from (DESIGN §8).
EXPECTED: dict[Method, tuple[str, float, str | None] | None] = {
    "clip_zero_shot": None,
    "clip_zero_shot_names": None,
    "clip_finetune": ("original", False, None),
    "no_balancemix": ("both", False, None),
    "balanced_sample": ("both", True, None),
    "mixup": ("both", False, "both"),
    "balancemix": ("original", True, "generated"),
    "balanced_photos": ("original", True, None),
    "ltgc_plus": ("both", True, None),
    "lift": ("original", False, None),
    "ltgc_lift": ("original", True, "generated"),
    "da_fusion": ("both", True, None),
    "discl": ("both", True, None),
    "lift_plus": ("original", False, None),
    "ltgc_lift_plus": ("original", True, "generated"),
    "lpt": ("original", True, None),
    "ltgc_lpt": ("both", True, None),
    "vl_ltr": ("original", 0.5, None),
    "ltgc_vl_ltr": ("both", 0.5, None),
    "rac": ("original", False, None),
    "ltgc_rac": ("both", False, None),
}
TRAINED = [method for method, recipe in METHODS.items() if recipe.i]
ORIGINAL = [0] * 70 + [1] * 20 + [2] * 10
GENERATED = [1] * 10 + [2] * 40
LABELS = torch.tensor(ORIGINAL + GENERATED)
POOLS = {"original": set(range(100)), "generated": set(range(100, 150)), "both": set(range(150))}


def settings(**changes: Any) -> TrainSettings:
    section = yaml.safe_load(Path("params.yaml").read_text())["train"] | {"device": "cpu"} | changes
    return TrainSettings.model_validate(section)


def training_set(images: torch.Tensor | None = None) -> TrainingSet:
    if images is None:
        images = torch.randint(256, (150, 3, 16, 16), dtype=torch.uint8)
    strengths = torch.tensor([0.0] * 100 + [1.0, 0.5] * 25)
    return TrainingSet(images, LABELS, original=100, strengths=strengths)


def new_classifier(model: Clip, classes: int = 3) -> Classifier:
    head = torch.randn(classes, 24)
    visual = tuning.apply(model.model.visual, settings(lora={"rank": 2, "alpha": 4, "dropout": 0}))
    return Classifier(visual, head, 20.0)


# --- what each method draws -----------------------------------------------------------------------------


def test_every_method_of_params_has_an_entry_in_the_table() -> None:
    assert list(METHODS) == list(EXPECTED) == list(get_args(Method))
    assert METHODS["clip_zero_shot"].i is None


@pytest.mark.parametrize("method", TRAINED)
def test_each_method_draws_from_its_data_with_its_sampling(method: Method) -> None:
    recipe, expected = METHODS[method], EXPECTED[method]
    assert expected
    pool_i, balanced, pool_j = expected
    torch.manual_seed(0)
    plan = make_plan(recipe, training_set(), settings(steps=300, batch_size=20))
    assert plan.i.shape == (300, 20)
    assert set(plan.i.flatten().tolist()) == POOLS[pool_i]
    shares = torch.bincount(LABELS[plan.i].flatten()) / 6000
    natural = torch.bincount(LABELS[list(POOLS[pool_i])]) / len(POOLS[pool_i])
    wanted = natural ** (1 - balanced)
    torch.testing.assert_close(shares, wanted / wanted.sum(), rtol=0, atol=0.03)
    if pool_j is None:
        assert plan.j is None and plan.lam is None
        assert plan.images_seen == 6000
    else:
        assert plan.j is not None and plan.lam is not None
        assert set(plan.j.flatten().tolist()) == POOLS[pool_j]
        times = Counter(plan.j.flatten().tolist())  # x_j is uniform over images, not over classes
        assert set(times.values()) == {6000 // len(POOLS[pool_j])}
        assert (plan.i != plan.j).any(1).all()
        assert plan.lam.shape == (300, 20)
        assert plan.images_seen == 12000


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_takes_the_same_number_of_steps_of_the_same_size(method: Method, model: Clip) -> None:
    recipe = METHODS[method]
    network, data = new_classifier(model), training_set()
    run = settings(steps=7, batch_size=6)
    sizes: list[int] = []
    network.visual.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    curve = train(network, make_plan(recipe, data, run), data, run)
    assert sizes == [6] * 7
    assert [row["step"] for row in curve] == [1, 2, 3, 4, 5, 6, 7]


def test_a_mixed_batch_holds_each_pairs_pixels_and_labels_in_the_shares_of_its_lambda() -> None:
    # Image k is plain with value k: no crop or flip changes it.
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 3, 16, 16)
    recipe = METHODS["balancemix"]
    data = training_set(images)
    plan = make_plan(recipe, data, settings(steps=2, batch_size=50))
    assert plan.j is not None and plan.lam is not None
    mixed, targets = batch(plan, 1, images[plan.indices(1)].float(), LABELS, classes=3)
    i, j, lam = plan.i[1], plan.j[1], plan.lam[1]
    torch.testing.assert_close(mixed[:, 1, 3, 5], lam * i + (1 - lam) * j)
    one_hot = torch.eye(3)
    torch.testing.assert_close(
        targets, lam[:, None] * one_hot[LABELS[i]] + (1 - lam)[:, None] * one_hot[LABELS[j]]
    )
    torch.testing.assert_close(targets.sum(1), torch.ones(50))


def test_without_mixing_a_batch_holds_the_drawn_images_and_their_labels() -> None:
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 3, 16, 16)
    plan = Plan(torch.tensor([[7, 120]]), crops=torch.zeros(1, 2, 1, 4))
    drawn, targets = batch(plan, 0, images[[7, 120]].float(), LABELS, classes=3)
    torch.testing.assert_close(drawn[:, 0, 0, 0], torch.tensor([7.0, 120.0]))
    assert targets.tolist() == [0, 2]


# --- pixels ---------------------------------------------------------------------------------------------


def test_pixels_are_exactly_what_clips_preprocessing_feeds_the_network(model: Clip, tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        noise = torch.randint(256, (20 + k, 30, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(path)
    loaded = pixels.load(paths, model)
    assert isinstance(loaded, torch.Tensor) and loaded.dtype == torch.uint8
    network = Classifier(model.model.visual, torch.randn(3, 24), 20.0)
    expected = torch.stack([model.preprocess(Image.open(path)) for path in paths])
    torch.testing.assert_close(loaded * network.gain + network.offset, expected, rtol=0, atol=1e-5)


def test_images_that_do_not_fit_in_memory_are_read_for_each_batch_with_the_same_result(
    model: Clip, clip_name: str, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for k, path in enumerate(paths):
        Image.new("RGB", (20, 20), (40 * k, 10, 0)).save(path)
    in_memory, on_disk = pixels.load(paths, model), pixels.load(paths, model, limit=6 * 3 * 16 * 16 - 1)
    assert isinstance(in_memory, torch.Tensor) and not isinstance(on_disk, torch.Tensor)
    indices = torch.tensor([5, 0, 0, 3])
    assert torch.equal(on_disk[indices], in_memory[indices])
    heads = []
    for images in (in_memory, on_disk):
        torch.manual_seed(0)
        network = new_classifier(load_tiny(clip_name))
        data = TrainingSet(images, torch.tensor([0, 1, 2, 0, 1, 2]), original=4)
        recipe, run = METHODS["balancemix"], settings(steps=2, batch_size=4)
        train(network, make_plan(recipe, data, run), data, run)
        heads.append(network.head.detach())
    assert torch.equal(heads[0], heads[1])


def test_an_image_that_is_gone_is_named(model: Clip, tmp_path: Path) -> None:
    with pytest.raises(LTGCError, match=r"gone\.png: not there"):
        pixels.load([tmp_path / "gone.png"], model)


def test_augmentation_crops_within_the_image_and_flips_about_half() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(400, 3, 32, 32)  # brighter to the right
    randoms = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    out = crops.augment(ramp, crops.steady(randoms))
    assert out.min() >= 0 and out.max() <= 248
    slope = (out[:, 0, 16, -1] - out[:, 0, 16, 0]) / 248
    assert 150 < (slope < 0).sum() < 250  # flipped
    assert slope.abs().min() > crops.SMALLEST_CROP - 0.05 and slope.abs().max() <= 1
    assert slope.abs().std() > 0.05  # crops of many sizes


def test_decaying_crops_grow_to_the_whole_image_in_five_epochs_and_flip_none() -> None:
    randoms = torch.rand(10, 400, 1, 4, generator=torch.Generator().manual_seed(0))
    side, flipped, *_ = crops.decaying(randoms).unbind(-1)
    area = side.square().flatten(1)  # (steps, 400)
    least = torch.tensor([0.08, 0.1092, 0.2033, 0.3915, 1.0]).repeat_interleave(
        2
    )  # 1 - sqrt(1 - t²) of the way to 1
    torch.testing.assert_close(area.min(1).values, least, rtol=0, atol=0.02)
    torch.testing.assert_close(area.mean(1), (least + 1) / 2, rtol=0, atol=0.04)  # uniform
    assert (area >= least[:, None] - 1e-6).all() and area.max() <= 1 and not flipped.any()


# --- the loop -------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_half_cosine() -> None:
    run = settings(steps=14, warmup_steps=4)
    factors = [learning_rate(step, run) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[9] == pytest.approx(0.5)
    assert factors[13] == pytest.approx(0.5 * (1 - 0.9510565))
    assert learning_rate(0, settings(steps=1, warmup_steps=0)) == 1.0


def test_training_learns_and_leaves_frozen_weights_alone(model: Clip) -> None:
    network = new_classifier(model)
    frozen = {n: p.clone() for n, p in network.named_parameters() if not p.requires_grad}
    learning = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}
    colours = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=torch.uint8)
    images = colours[LABELS].view(150, 3, 1, 1).expand(150, 3, 16, 16)
    recipe = METHODS["balanced_sample"]
    run = settings(steps=40, batch_size=12, lr=0.01, warmup_steps=2)
    torch.manual_seed(0)
    data = training_set(images)
    calls: list[bool] = []

    def validate() -> float:
        calls.append(network.training)
        return 12.5

    curve = train(network, make_plan(recipe, data, run), data, run, monitor=Monitor(validate))
    assert curve[-1]["loss"] < 0.3 * curve[0]["loss"]
    assert curve[-1] | {"loss": 0} == {
        "step": 40,
        "loss": 0,
        "lr": pytest.approx(0, abs=1e-4),
        "val_accuracy": 12.5,
    }
    assert calls == [False] * 3  # a few times, in evaluation mode, the last time at the end
    assert all(torch.equal(p, frozen[n]) for n, p in network.named_parameters() if n in frozen)
    assert all(not torch.equal(p, learning[n]) for n, p in network.named_parameters() if n in learning)
    assert {n.partition(".")[0] for n in learning} == {"head", "visual"}


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_key(model: Clip) -> None:
    network, data = new_classifier(model), training_set()
    network.head.data[0] = float("nan")
    recipe, run = METHODS["clip_finetune"], settings(steps=3, batch_size=4)
    with pytest.raises(LTGCError, match=r"train\.lr: the loss was not a number"):
        train(network, make_plan(recipe, data, run), data, run)


def test_bf16_gives_the_losses_of_fp32_to_its_precision_and_leaves_the_network_in_fp32(
    model: Clip, clip_name: str
) -> None:
    recipe = METHODS["balancemix"]
    curves = []
    for clip, precision in ((model, "fp32"), (load_tiny(clip_name), "bf16")):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision, but here
        torch.manual_seed(0)
        network, run = new_classifier(clip), settings(steps=3, batch_size=6, precision=precision)
        data = training_set()
        curves.append([row["loss"] for row in train(network, make_plan(recipe, data, run), data, run)])
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert network(data.pixels[torch.arange(2)]).dtype == torch.float32
    AcceleratorState._reset_state(reset_partial_state=True)
    assert curves[0] != curves[1] == pytest.approx(curves[0], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, r"train\.precision: fp16 needs a GPU"),
        ({"batch_size": 2, "accumulation": 3}, r"train\.batch_size: 2 images cannot be cut into 3 shares"),
    ],
)
def test_what_cannot_be_computed_here_is_refused_by_key(
    changes: dict[str, Any], message: str, model: Clip
) -> None:
    network, data, run = new_classifier(model), training_set(), settings(steps=2, **changes)
    recipe = METHODS["clip_finetune"]
    with pytest.raises(LTGCError, match=message):
        train(network, make_plan(recipe, data, run), data, run)


def test_a_saved_classifier_gives_the_same_logits_when_loaded(model: Clip, clip_name: str, tmp_path: Path) -> None:
    network, data = new_classifier(model), training_set()
    recipe, run = METHODS["balancemix"], settings(steps=3, batch_size=4, lr=0.05)
    untouched = load_tiny(clip_name)
    train(network, make_plan(recipe, data, run), data, run)
    network.save(tmp_path)
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    loaded = load_classifier(tmp_path, untouched)
    torch.testing.assert_close(loaded(images), network(images).detach(), rtol=0, atol=1e-5)
    before = load_tiny(clip_name).model.visual.state_dict()
    assert before.keys() == untouched.model.visual.state_dict().keys()  # loading worked on a copy


# --- the stage ------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_writes_its_model_and_curve_and_the_same_bytes_for_the_same_seed(
    in_world: Callable[..., Path],
) -> None:
    root = in_world(lora={"rank": 2, "alpha": 4, "dropout": 0.2})
    train_stage("balancemix", "1")
    folder, curves = root / "models/balancemix/1", root / "plots/curves/balancemix/1"
    first, first_curves = files(folder), files(curves)
    shutil.rmtree(root / "models")
    assert set(first) == {
        "run.json",
        "head.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    run, adapter = json.loads(first["run.json"]), load(first["adapter/adapter_model.safetensors"])
    assert run.pop("key")
    assert 0 <= run.pop("val_accuracy") <= 100
    assert run == {
        "method": "balancemix",
        "seed": 1,
        "skipped": None,
        "steps": 4,
        "original": sum(count[0] for count in COUNTS),
        "generated": 6,
        "images_seen": 4 * 5 * 2,
        "trained_parameters": 3 * 24 + sum(tensor.numel() for tensor in adapter.values()),
        "drawings_weight": None,
        "head_alpha": None,
        "alpha": None,
    }
    assert set(first_curves) == {f"plots/metrics/{name}.tsv" for name in ("loss", "lr", "val_accuracy")}
    loss = [line.split("\t") for line in first_curves["plots/metrics/loss.tsv"].decode().splitlines()]
    assert loss[0] == ["step", "loss"] and [row[0] for row in loss[1:]] == ["1", "2", "3", "4"]
    train_stage("balancemix", "1")
    assert files(folder) == first and files(curves) == first_curves
    train_stage("balancemix", "0")
    other = files(root / "models/balancemix/0")
    for name in ("head.safetensors", "adapter/adapter_model.safetensors"):
        assert other[name] != first[name]
    assert not list((root / "models").rglob(".*"))


@pytest.mark.parametrize("method", TRAINED)
def test_without_generated_images_a_method_runs_on_the_originals_or_says_why_not(
    method: Method, in_world: Callable[..., Path]
) -> None:
    root = in_world(generated=False)
    train_stage(method, "0")
    run = json.loads((root / f"models/{method}/0/run.json").read_text())
    assert run["generated"] == 0
    recipe = METHODS[method]
    if recipe.needs_generated:
        assert run["skipped"] == "needs generated images, and generated/accepted has none (extend.target: 0?)"
        assert run["steps"] == run["images_seen"] == 0
        assert set(files(root / f"models/{method}/0")) == {"run.json"}
        assert files(root / f"plots/curves/{method}/0") == {}
    else:
        assert run["skipped"] is None and run["steps"] == settings().of(method).steps


def test_a_data_set_without_validation_split_trains_without_validation_accuracy(
    in_world: Callable[..., Path],
) -> None:
    root = in_world()
    lines = (root / MANIFEST).read_text().splitlines(keepends=True)
    (root / MANIFEST).write_text("".join(line for line in lines if ",val," not in line))
    train_stage("clip_finetune", "0")
    assert json.loads((root / "models/clip_finetune/0/run.json").read_text())["val_accuracy"] is None


@pytest.mark.parametrize("init", ["templates", "class_names"])
def test_the_head_of_zero_shot_is_the_text_features_that_params_ask_for(
    init: Literal["templates", "class_names"], in_world: Callable[..., Path], model: Clip
) -> None:
    root = in_world(head_init=init, logit_scale=None if init == "templates" else 7.5)
    train_stage("clip_zero_shot", "0")
    texts = [f"A photo of the class {name}" for name in NAMES]
    if init == "templates":
        texts = [f"{text} with petal number {label}" for label, text in enumerate(texts)]
    network = load_classifier(root / "models/clip_zero_shot/0", model)
    torch.testing.assert_close(network.head.detach(), model.text_features(texts))
    assert network.logit_scale == pytest.approx(model.logit_scale if init == "templates" else 7.5)
    assert set(files(root / "models/clip_zero_shot/0")) == {"run.json", "head.safetensors"}
    assert json.loads((root / "models/clip_zero_shot/0/run.json").read_text())["trained_parameters"] == 0


def test_a_class_without_template_is_named(in_world: Callable[..., Path]) -> None:
    root = in_world()
    templates = (root / TEMPLATES).read_text().splitlines(keepends=True)
    (root / TEMPLATES).write_text("".join(templates[:1] + templates[2:]))
    with pytest.raises(LTGCError, match="no template of class 'green fern'"):
        train_stage("clip_finetune", "0")
    assert not list((root / "models").rglob("*.safetensors"))


@pytest.mark.parametrize("arguments", [("balance_mix",), ("balance_mix", "0"), ("balancemix", "x")])
def test_a_wrong_command_line_shows_the_right_one(arguments: tuple[str, ...]) -> None:
    with pytest.raises(LTGCError, match=r"usage: python -m stages\.train \[METHOD \[SEED\]\]"):
        train_stage(*arguments)
