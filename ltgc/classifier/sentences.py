"""VL-LTR's language-guided branch (Tian et al., ECCV 2022, §3.3): images against sentences of each class."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltgc.classifier.branch import Branch
from ltgc.clip.encoder import Clip

VISUAL = 0.2  # share of the head in the probabilities, as in the authors' evaluation; the rest is the sentences'


class Sentences(Branch):
    """The probability of a class is 0.2 times that of the head and 0.8 times that of its anchor sentences.

    An image attends to the sentences of each class, and what it reads there is compared with it by cosine. Queries
    and keys start as the layer-normalised features themselves.
    """

    file: ClassVar[str] = "sentences.safetensors"
    anchors: Tensor  # (C, M, D) text features, zeros where a class has fewer than M
    missing: Tensor  # (C, M) bool
    scale: Tensor  # () of the cosines

    def __init__(self, anchors: Tensor, missing: Tensor, scale: Tensor) -> None:
        super().__init__()
        for name, value in {"anchors": anchors, "missing": missing, "scale": scale}.items():
            self.register_buffer(name, value)
        width = anchors.shape[-1]
        self.norm_image, self.norm_sentence = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        for layer in (self.query, self.key):
            nn.init.eye_(layer.weight)
        self.to(anchors.device)

    def forward(self, logits: Tensor, features: Tensor, images: Tensor) -> Tensor:
        both = [logits.log_softmax(-1), self.sentence_logits(features).log_softmax(-1)]
        shares = torch.tensor([VISUAL, 1 - VISUAL], device=logits.device).log()
        return torch.stack(both, -1).add(shares).logsumexp(-1)

    def sentence_logits(self, features: Tensor) -> Tensor:
        """Unit image features (B, D) -> logits (B, C) of the sentences alone."""
        query, key = self.query(self.norm_image(features)), self.key(self.norm_sentence(self.anchors))
        weight = torch.einsum("bd,cmd->bcm", query, key) / features.shape[-1] ** 0.5
        weight = weight.masked_fill(self.missing, float("-inf")).softmax(-1)
        read = torch.einsum("bcm,cmd->bcd", weight, self.anchors)
        return self.scale * torch.einsum("bcd,bd->bc", F.normalize(read, dim=-1), features)

    @classmethod
    def of(cls, saved: dict[str, Tensor], clip: Clip) -> Self:
        branch = cls(saved["anchors"], saved["missing"], saved["scale"])
        branch.load_state_dict(saved)
        return branch
