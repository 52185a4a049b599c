"""AdaptFormer (Chen et al. 2022): a small adapter beside the MLP of each block."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ltgc.classifier.vit import Visual, blocks


class Adapter(nn.Module):
    """s ReLU(x W_down) W_up of what the block's MLP reads, x = LN(x') (Eq. 3). s is learned, as in LIFT."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.tensor([0.1]))  # the s of AdaptFormer's experiments
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self.down(x)))


class ParallelMLP(nn.Module):
    """MLP(x) + adapter(x): with the block's own x' + ... this is Eq. 4."""

    def __init__(self, mlp: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.adapter(x)


def add_adapters(visual: Visual, bottleneck: int) -> Visual:
    for block in blocks(visual):
        weight = block.mlp.c_fc.weight  # (4 D, D)
        block.mlp = ParallelMLP(block.mlp, Adapter(weight.shape[1], bottleneck).to(weight.device))
    return visual


def adapters(visual: Visual) -> nn.ModuleList:
    return nn.ModuleList(block.mlp.adapter for block in blocks(visual))


def load_adapters(visual: Visual, file: Path) -> Visual:
    saved = load_file(file)
    add_adapters(visual, bottleneck=len(saved["0.down.bias"]))
    adapters(visual).load_state_dict(saved)
    return visual
