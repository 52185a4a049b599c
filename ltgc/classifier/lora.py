"""LoRA on CLIP's visual encoder: peft's adapter, and the merged export."""

import copy
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from ltgc.classifier.vit import rebuild_attention, restore_attention
from ltgc.pipeline.settings.training import LoraSettings

# Patterns, not lists: peft keeps a list as a set and would save it in an order that changes from run to run.
TARGETS = {"attention": r"attn\.(q_proj|k_proj|v_proj|out_proj)", "mlp": r"mlp\.(c_fc|c_proj)"}


def add_adapter(visual: nn.Module, lora: LoraSettings) -> PeftModel:
    """Rebuild the attention of `visual` and inject an untrained LoRA adapter; only it requires gradients.

    A's initial values come from torch's global generator; B is 0, so that the output does not change yet.
    """
    targets = rf"transformer\.resblocks\.\d+\.({'|'.join(TARGETS[name] for name in lora.targets)})"
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    return get_peft_model(rebuild_attention(visual), config)


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, as peft reads them."""
    adapted.save_pretrained(str(folder))
    (folder / "README.md").unlink()  # peft's empty form of a model card


def load_adapter(visual: nn.Module, folder: Path) -> PeftModel:
    """Rebuild the attention of `visual` and inject the trained adapter in `folder`."""
    return PeftModel.from_pretrained(rebuild_attention(visual), str(folder))


def merge(adapted: PeftModel) -> nn.Module:
    """A copy of the adapted tower as plain open_clip knows it: the LoRA delta added to the weights, once."""
    return restore_attention(copy.deepcopy(adapted).merge_and_unload())
