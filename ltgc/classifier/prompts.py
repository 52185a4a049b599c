"""Deep visual prompts (VPT, Jia et al. 2022) and LPT's group prompts (Dong et al. 2023) in a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ltgc.classifier.vit import Visual, blocks


class Prompted(nn.Module):
    """An encoder whose blocks read learned tokens beside an image's own: VPT's, one set a block for all images.

    With group prompts the later blocks read more: the mean of those sets of a pool whose keys are nearest to the
    image, which is seen as its class token after the shared prompts alone (LPT, §4.2). Until then group and keys
    are None.
    """

    def __init__(self, visual: Visual, length: int) -> None:
        super().__init__()
        layers = len(blocks(visual))
        self.visual = visual
        self.preprocess_cfg: Any = visual.preprocess_cfg
        token = visual.class_embedding  # (W,)
        self.shared = nn.Parameter(_tokens(token, layers, length))  # (blocks, length, W)
        self.group: nn.Parameter | None = None  # (pool, later blocks, length, W)
        self.keys: nn.Parameter | None = None  # (pool, W)
        self.matched = 0  # how many of the pool an image reads

    def add_groups(self, pool: int, matched: int) -> None:
        """A pool of group prompts for the later half of the blocks, `matched` of which each image reads."""
        layers, length, _ = self.shared.shape
        token = self.visual.class_embedding
        self.group = nn.Parameter(_tokens(token, pool, layers - layers // 2, length))
        self.keys = nn.Parameter(_tokens(token, pool))
        self.matched = matched

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) -> features (B, D)."""
        return self.encode(images)[0]

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D), and how near the keys are that each image is matched with: the sum of cosines, (B,)."""
        tokens = self.visual._embeds(images)
        if self.group is None or self.keys is None:
            whole = self._read(tokens, range(len(self.shared)))
            return self._project(self._pooled(whole)), whole.new_zeros(len(images))
        first = len(self.shared) - self.group.shape[1]
        tokens = self._read(tokens, range(first))
        query = self._pooled(self._read(tokens, range(first, len(self.shared)))).detach()  # (B, W)
        near, chosen = (F.normalize(query, dim=-1) @ F.normalize(self.keys, dim=-1).T).topk(self.matched)
        group = self.group[chosen].mean(1)  # (B, later blocks, length, W)
        whole = self._read(tokens, range(first, len(self.shared)), group)
        return self._project(self._pooled(whole)), near.sum(-1)

    def _read(self, tokens: Tensor, layers: range, group: Tensor | None = None) -> Tensor:
        """The tokens (B, T, W) after these blocks; prompts are read by one block and dropped again."""
        found, length = blocks(self.visual), tokens.shape[1]
        for position, layer in enumerate(layers):
            read = [tokens, self.shared[layer].expand(len(tokens), -1, -1)]
            if group is not None:
                read.append(group[:, position])
            tokens = found[layer](torch.cat([t.to(tokens.dtype) for t in read], 1))[:, :length]
        return tokens

    def _pooled(self, tokens: Tensor) -> Tensor:
        pooled: Tensor = self.visual._pool(tokens)[0]
        return pooled

    def _project(self, pooled: Tensor) -> Tensor:
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def tensors(self) -> dict[str, Tensor]:
        """What was trained, for a file."""
        learned = {"shared": self.shared, "group": self.group, "keys": self.keys}
        saved = {name: value.detach() for name, value in learned.items() if value is not None}
        return saved | {"matched": torch.tensor(self.matched)}


def load_prompts(visual: Visual, file: Path) -> Prompted:
    saved = load_file(file)
    prompted = Prompted(visual, length=saved["shared"].shape[1])
    if "group" in saved:
        prompted.add_groups(len(saved["keys"]), int(saved["matched"]))
    with torch.no_grad():
        for name, value in prompted.named_parameters(recurse=False):
            value.copy_(saved[name])
    return prompted


def _tokens(like: Tensor, *shape: int) -> Tensor:
    """Tokens (..., W) to start from, as in VPT and LPT: from torch's global generator."""
    return nn.init.trunc_normal_(torch.empty(*shape, len(like)), std=0.02).to(like.device)
