"""The blocks of open_clip's VisionTransformer, and their attention on plain Linear layers.

open_clip's blocks use nn.MultiheadAttention. PEFT accepts it as a target, but applies the delta of its out_proj
twice (huggingface/peft#3774) and merges weights at every call. On Linear layers it does neither.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ltgc.pipeline.errors import LTGCError

Visual = Any  # open_clip's visual tower, or peft's around it


def blocks(visual: nn.Module) -> list[Any]:
    """The transformer blocks of open_clip's VisionTransformer.

    Raises LTGCError for a visual tower that is not made of open_clip's standard blocks (ResNet, timm).
    """
    found = list(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else []
    if not found or not all(isinstance(block, ResidualAttentionBlock) for block in found):
        raise LTGCError(
            f"clip.model: no LoRA for a visual tower of type {type(visual).__name__} with other than open_clip's "
            "standard blocks, nor AdaptFormer nor prompts; name a ViT of open_clip (ViT-B-32, ViT-L-14, ...), or "
            "set train.tuning to linear_probe or full"
        )
    return found


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
