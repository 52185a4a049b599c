"""LoRA: the rebuilt attention, peft's adapter and the merged export."""

from pathlib import Path

import open_clip
import peft
import pytest
import torch
from helpers.training_world import load_tiny, save_clip
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file
from torch import nn

from ltgc.classifier import lora, vit
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import LoraSettings

SETTINGS = LoraSettings(rank=4, alpha=12, dropout=0.0)
SCALE = 3.0  # alpha / rank


@pytest.fixture
def visual(tmp_path: Path) -> nn.Module:
    return load_tiny(save_clip(tmp_path / "clip")).model.visual


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def adapted(visual: nn.Module) -> peft.PeftModel:
    """`visual` with an adapter that changes something: B is random instead of 0."""
    torch.manual_seed(2)
    model = lora.add_adapter(visual, SETTINGS).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def small_vit(image_size: int, patch: int, width: int, layers: int, heads: int) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=image_size,
        patch_size=patch,
        width=width,
        layers=layers,
        heads=heads,
        mlp_ratio=4.0,
        output_dim=width,
    ).eval()


@pytest.mark.parametrize("shape", [(32, 8, 48, 3, 4), (224, 32, 768, 12, 12)], ids=["small", "ViT-B/32"])
@torch.inference_mode()
def test_rebuilt_attention_gives_open_clips_outputs(shape: tuple[int, int, int, int, int]) -> None:
    visual = small_vit(*shape)
    for block in visual.transformer.resblocks:  # open_clip starts with zero biases, which would hide a lost one
        nn.init.normal_(block.attn.in_proj_bias, std=0.2)
        nn.init.normal_(block.attn.out_proj.bias, std=0.2)
    images = torch.randn(2, 3, shape[0], shape[0])
    expected = visual(images)
    rebuilt = vit.rebuild_attention(visual)
    assert not any(isinstance(module, nn.MultiheadAttention) for module in rebuilt.modules())
    torch.testing.assert_close(rebuilt(images), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_restoring_the_attention_gives_back_every_weight_bit_for_bit(visual: nn.Module) -> None:
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    after = vit.restore_attention(vit.rebuild_attention(visual)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.inference_mode()
def test_an_untrained_adapter_changes_nothing_and_only_the_adapter_can_learn(
    visual: nn.Module, images: torch.Tensor
) -> None:
    expected = visual(images)
    model = lora.add_adapter(visual, SETTINGS)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in learning)
    assert len(learning) == 2 * 6 * 2  # layers; q k v out c_fc c_proj


@torch.inference_mode()
def test_a_saved_adapter_is_two_files_that_peft_itself_loads(
    visual: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    model = adapted(visual)
    expected = model(images)
    lora.save_adapter(model, tmp_path / "a")
    lora.save_adapter(model, tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    fresh = vit.rebuild_attention(load_tiny(f"local-dir:{tmp_path / 'clip'}").model.visual)
    assert torch.equal(peft.PeftModel.from_pretrained(fresh, str(tmp_path / "a")).eval()(images), expected)


@torch.inference_mode()
def test_the_merged_export_loads_in_plain_open_clip_and_gives_the_adapters_logits(
    visual: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    model = adapted(visual)
    texts = torch.nn.functional.normalize(torch.randn(5, 24), dim=-1)
    expected = torch.nn.functional.normalize(model(images), dim=-1) @ texts.T
    merged = lora.merge(model).state_dict()

    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'clip'}")
    unchanged = plain.eval().encode_image(images, normalize=True) @ texts.T
    plain.visual.load_state_dict(merged, strict=True)
    logits = plain.encode_image(images, normalize=True) @ texts.T
    assert (unchanged - expected).abs().max() > 1e-2
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        torch.nn.functional.normalize(model(images), dim=-1) @ texts.T, expected, rtol=0, atol=0
    )  # merging has left the adapter as it was


def test_the_merged_export_holds_each_delta_exactly_once(visual: nn.Module, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    model = adapted(visual)
    lora.save_adapter(model, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    merged = lora.merge(model).state_dict()

    def delta(layer: str) -> torch.Tensor:
        b, a = (saved[f"base_model.model.{layer}.lora_{m}.weight"] for m in "BA")
        return SCALE * b @ a

    for index in range(2):
        block = f"transformer.resblocks.{index}"
        projections = torch.cat([delta(f"{block}.attn.{p}_proj") for p in "qkv"])
        expected = {f"{block}.attn.in_proj_weight": projections}
        for layer in ("attn.out_proj", "mlp.c_fc", "mlp.c_proj"):
            expected[f"{block}.{layer}.weight"] = delta(f"{block}.{layer}")
        for name, change in expected.items():
            assert change.abs().max() > 1e-2
            torch.testing.assert_close(merged[name] - before[name], change, rtol=0, atol=1e-6)
            del before[name]
    assert all(torch.equal(merged[name], value) for name, value in before.items())


def test_a_tower_of_other_blocks_is_refused_by_name() -> None:
    resnet = ModifiedResNet((1, 1, 1, 1), output_dim=8, heads=1, image_size=32, width=8)
    with pytest.raises(LTGCError, match=r"clip.model: no LoRA for .* ModifiedResNet"):
        vit.rebuild_attention(resnet)
