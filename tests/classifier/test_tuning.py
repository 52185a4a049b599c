"""Tunings: what each trains, leaves alone, saves and loads."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers.paths import ROOT
from helpers.training_world import PREPROCESS, load_tiny
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from ltgc.classifier import tuning
from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip.encoder import Clip
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings

TUNINGS = list(tuning.TUNINGS)
FILES = {
    "lora": {"adapter"},
    "adaptformer": {"adaptformer.safetensors"},
    "prompts": {"prompts.safetensors"},
    "linear_probe": set(),
    "full": {"visual.safetensors"},
}


@pytest.fixture
def clip(clip_name: str) -> Clip:
    return load_tiny(clip_name)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def settings(name: str, **changes: Any) -> TrainSettings:
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]
    return TrainSettings.model_validate(section | {"tuning": name} | changes)


def tuned(clip: Clip, name: str, bias: torch.Tensor | None = None) -> Classifier:
    torch.manual_seed(0)
    visual = tuning.apply(clip.model.visual, settings(name))
    return Classifier(visual, torch.randn(3, 24), 20.0, bias).eval()


def one_step(network: Classifier, images: torch.Tensor) -> None:
    """Change everything that is trained."""
    optimizer = torch.optim.AdamW(network.parameter_groups(weight_decay=0.1), lr=0.05, fused=True)
    for _ in range(2):  # the inner weights of an adapter have no slope before its outer ones are off zero
        optimizer.zero_grad()
        F.cross_entropy(network.train()(images), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    network.eval()


def test_every_tuning_of_params_has_an_entry_in_the_table() -> None:
    assert list(get_args(TrainSettings.model_fields["tuning"].annotation)) == TUNINGS


@pytest.mark.parametrize("name", TUNINGS)
def test_a_tuning_changes_no_output_and_lets_only_its_own_weights_learn(
    name: str, clip: Clip, images: torch.Tensor
) -> None:
    expected = Classifier(clip.model.visual, torch.zeros(3, 24), 20.0).features(images)
    network = tuned(clip, name)
    if name != "prompts":  # they are read from the start
        torch.testing.assert_close(network.features(images), expected, rtol=1e-5, atol=1e-5)
    before = {n: value.clone() for n, value in network.state_dict().items()}
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    own = {
        "lora": "lora_",
        "adaptformer": ".adapter.",
        "prompts": "visual.shared",
        "linear_probe": "no such name",
        "full": "visual.",
    }[name]
    assert learning == {n for n in before if own in n} | {"head"}
    one_step(network, images)
    for n, value in network.state_dict().items():
        assert torch.equal(value, before[n]) == (n not in learning), n


@pytest.mark.parametrize(
    ("name", "bias"),
    [*[(name, None) for name in TUNINGS], ("linear_probe", torch.zeros(3))],
    ids=[*TUNINGS, "linear head"],
)
def test_a_trained_classifier_gives_the_same_logits_from_its_files(
    name: str, bias: torch.Tensor | None, clip: Clip, clip_name: str, images: torch.Tensor, tmp_path: Path
) -> None:
    network = tuned(clip, name, bias)
    start = network(images)
    one_step(network, images)
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    network.save(first)
    assert {path.name for path in first.iterdir()} == FILES[name] | {"head.safetensors"}
    untouched = load_tiny(clip_name)
    loaded = load_classifier(first, untouched)
    assert (start - network(images)).abs().max() > 0.1
    torch.testing.assert_close(loaded(images), network(images).detach(), rtol=0, atol=1e-4)  # logits up to 40
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded.save(again)  # what was loaded knows how to be saved
    for path in first.rglob("*.safetensors"):
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()
    torch.testing.assert_close(
        untouched.model.visual.state_dict(), load_tiny(clip_name).model.visual.state_dict(), rtol=0, atol=0
    )


def test_adaptformer_adds_a_scaled_bottleneck_of_what_the_mlp_reads(clip: Clip, images: torch.Tensor) -> None:
    network = tuned(clip, "adaptformer")
    one_step(network, images)
    block = network.visual.transformer.resblocks[0]
    x = torch.randn(2, 5, 32)
    middle = x + block.attn(*[block.ln_1(x)] * 3, need_weights=False)[0]
    read = block.ln_2(middle)
    a = block.mlp.adapter
    bottleneck = F.relu(read @ a.down.weight.T + a.down.bias) @ a.up.weight.T + a.up.bias
    expected = middle + block.mlp.mlp(read) + a.scale * bottleneck
    assert a.down.weight.shape == (16, 32) and (a.scale * bottleneck).abs().max() > 1e-3
    torch.testing.assert_close(block(x), expected)


def test_lora_goes_on_the_layers_that_params_name(clip: Clip) -> None:
    lora = {"rank": 2, "alpha": 4, "dropout": 0, "targets": ["attention"]}
    visual = tuning.apply(clip.model.visual, settings("lora", lora=lora))
    adapted = {n.rpartition(".lora_A")[0] for n, _ in visual.named_parameters() if "lora_A" in n}
    assert {n.rpartition(".")[2] for n in adapted} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert len(adapted) == 2 * 4


def resnet() -> nn.Module:
    visual: Any = ModifiedResNet((1, 1, 1, 1), output_dim=24, heads=1, image_size=32, width=8)
    visual.preprocess_cfg = PREPROCESS
    return visual.requires_grad_(False)


@pytest.mark.parametrize("name", ["lora", "adaptformer", "prompts"])
def test_an_encoder_of_other_blocks_is_refused_with_the_tunings_that_it_takes(name: str) -> None:
    with pytest.raises(LTGCError, match=r"clip\.model: .*ModifiedResNet.*train\.tuning to linear_probe or full"):
        tuning.apply(resnet(), settings(name))


def test_a_frozen_encoder_keeps_its_running_means_while_the_head_learns() -> None:
    network = Classifier(tuning.apply(resnet(), settings("linear_probe")), torch.randn(3, 24), 20.0)
    before = {n: value.clone() for n, value in network.visual.state_dict().items()}
    one_step(network, torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8))
    assert all(torch.equal(value, before[n]) for n, value in network.visual.state_dict().items())
    assert Classifier(tuning.apply(resnet(), settings("full")), torch.randn(3, 24), 20.0).train().visual.training


def test_weights_that_nothing_would_save_are_an_error(clip: Clip, tmp_path: Path) -> None:
    network = Classifier(clip.model.visual.requires_grad_(True), torch.randn(3, 24), 20.0)
    with pytest.raises(RuntimeError, match=r"without ltgc\.classifier\.tuning\.apply"):
        network.save(tmp_path)
