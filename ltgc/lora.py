"""LoRA on CLIP's visual encoder: attention on plain Linear layers, peft's adapter, and the merged export.

open_clip's blocks use nn.MultiheadAttention. PEFT accepts it as a target, but applies the delta of its out_proj
twice (huggingface/peft#3774) and merges weights at every call. On Linear layers it does neither.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from ltgc import params
from ltgc.tuning import blocks

# Patterns, not lists: peft keeps a list as a set and would save it in an order that changes from run to run.
TARGETS = {"attention": r"attn\.(q_proj|k_proj|v_proj|out_proj)", "mlp": r"mlp\.(c_fc|c_proj)"}


class Attention(nn.Module):
    """Multi-head self-attention as nn.MultiheadAttention computes it, with a Linear layer a projection."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        bias = attention.in_proj_bias
        weights = attention.in_proj_weight.chunk(3)
        biases = bias.chunk(3) if bias is not None else (None, None, None)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,  # (B, L, D)
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        heads = (self.num_heads, -1)
        q = self.q_proj(query).unflatten(-1, heads).transpose(1, 2)  # (B, heads, L, D / heads)
        k = self.k_proj(key).unflatten(-1, heads).transpose(1, 2)
        v = self.v_proj(value).unflatten(-1, heads).transpose(1, 2)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(x.transpose(1, 2).flatten(2)), None  # a pair, as nn.MultiheadAttention gives


def rebuild_attention(visual: nn.Module) -> nn.Module:
    """Put each attention of open_clip's VisionTransformer on Linear layers, in place; outputs stay the same.

    Raises LTGCError for a visual tower that is not made of open_clip's standard blocks (ResNet, timm).
    """
    for block in blocks(visual):
        block.attn = Attention(block.attn)
    return visual


def restore_attention(visual: nn.Module) -> nn.Module:
    """Undo `rebuild_attention` in place: nn.MultiheadAttention again, under open_clip's parameter names."""
    for block in blocks(visual):
        block.attn = _multihead(block.attn)
    return visual


def add_adapter(visual: nn.Module, lora: params.Lora) -> PeftModel:
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


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear layer with a copy of these parameters. Born on `meta`: no random numbers are spent on it."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = _copy(weight)
    if bias is not None:
        linear.bias = _copy(bias)
    return linear


def _multihead(attention: Attention) -> nn.MultiheadAttention:
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    width = attention.out_proj.out_features
    biased = attention.q_proj.bias is not None
    multihead = nn.MultiheadAttention(width, attention.num_heads, bias=biased, batch_first=True, device="meta")
    multihead.in_proj_weight = _copy(torch.cat([p.weight for p in projections]))
    multihead.out_proj.weight = _copy(attention.out_proj.weight)
    if biased:
        multihead.in_proj_bias = _copy(torch.cat([p.bias for p in projections]))
        multihead.out_proj.bias = _copy(attention.out_proj.bias)
    return multihead


def _copy(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
