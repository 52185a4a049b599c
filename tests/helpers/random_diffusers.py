"""A Stable Diffusion with random weights and a tokenizer of letters, for tests of drawing on this machine."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENS = 77  # that the text encoder reads, a letter each, and one at each end


def save_pipeline(folder: Path, refuses: bool = False, overflows: bool = False) -> str:
    """Write it into `folder`, draws of 16 x 16 pixels; refuses: its safety checker finds every image unsafe."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=TOKENS)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(words), **small, **ends))
    blocks: dict[str, Any] = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, cross_attention_dim=16, attention_head_dim=4, **blocks,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        **blocks,
    )  # fmt: skip
    if overflows:
        torch.nn.init.constant_(vae.decoder.conv_out.bias, torch.inf)
        torch.nn.init.constant_(vae.decoder.conv_out.weight, -torch.inf)
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    checker = None
    if refuses:
        vision = {"image_size": 32, "patch_size": 16, **small}
        checker = StableDiffusionSafetyChecker(
            CLIPConfig(text_config=small, vision_config=vision, projection_dim=8)
        )
        checker.concept_embeds_weights.fill_(-2.0)  # no cosine is below
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=checker, requires_safety_checker=refuses,
        feature_extractor=CLIPImageProcessor(size=32, crop_size=32) if refuses else None,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def save_lora(pipeline: str, folder: Path) -> Path:
    """A LoRA with random weights for its UNet, as diffusers' training scripts save it; the file."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder / "pytorch_lora_weights.safetensors"
