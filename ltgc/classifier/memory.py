"""RAC's retrieval branch (Long et al., CVPR 2022, §3): the texts of what in a memory is nearest to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltgc.classifier.branch import Branch
from ltgc.clip.encoder import Clip

NEAREST = 10  # images and descriptions each, where the memory has as many


class Memory(Branch):
    """Adds to the logits of the head those of the texts of the nearest images and of the nearest descriptions.

    The text of an image is that of its class. Nearness is the cosine of CLIP's features before training, and CLIP
    has read the texts before training, too. What is trained reads the retrieved texts in order: one transformer
    layer, which leaves them as they are at first, and a cosine head on the mean of what it makes of them.
    """

    file: ClassVar[str] = "memory.safetensors"
    images: Tensor  # (N, D) unit features
    labels: Tensor  # (N,) int64: the class of each image, which is the row of its text
    texts: Tensor  # (C + S, D) unit features of the texts of the classes, then of the descriptions
    scale: Tensor  # () of the cosines

    def __init__(self, images: Tensor, labels: Tensor, texts: Tensor, scale: Tensor, head: Tensor) -> None:
        """head: (C, D), the class weights to start from."""
        super().__init__()
        buffers = {"images": images, "labels": labels, "texts": texts, "scale": scale}
        for name, value in buffers.items():
            self.register_buffer(name, value)
        width = texts.shape[1]
        self.head = nn.Parameter(head.detach().clone())
        ranks = min(NEAREST, len(images) - 1) + min(NEAREST, max(0, len(texts) - len(head) - 1))
        self.rank = nn.Parameter(torch.zeros(ranks, width))
        heads = width // 64 if width % 64 == 0 else 1
        self.reader = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        for layer in (self.reader.self_attn.out_proj, self.reader.linear2):
            nn.init.zeros_(layer.weight)
        self.to(images.device)
        self.encode: Callable[[Tensor], Tensor] | None = None  # preprocessed images -> unit features (B, D)

    def forward(self, logits: Tensor, features: Tensor, images: Tensor) -> Tensor:
        assert self.encode
        return logits + self.text_logits(self.nearest(self.encode(images)))

    def nearest(self, queries: Tensor, own: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The rows of `texts` that are retrieved for unit features (B, D) of CLIP: (B, ranks) int64.

        own: (B,) each, which image of the memory, and which row of `texts`, is the query's own and not retrieved;
        -1: none.
        """
        classes = len(self.head)
        of_images, of_texts = queries @ self.images.T, queries @ self.texts[classes:].T
        if own:
            for cosines, column in ((of_images, own[0]), (of_texts, own[1] - classes)):
                known = column >= 0
                cosines[known, column[known]] = -torch.inf
        described = of_texts.topk(min(NEAREST, max(0, of_texts.shape[1] - 1))).indices
        pictured = of_images.topk(len(self.rank) - described.shape[1]).indices
        return torch.cat([self.labels[pictured], classes + described], 1)

    def text_logits(self, retrieved: Tensor) -> Tensor:
        """Rows of `texts` (B, ranks) -> logits (B, C)."""
        read = self.reader(self.texts[retrieved] + self.rank).mean(1)
        return self.scale * F.normalize(read, dim=-1) @ F.normalize(self.head, dim=-1).T

    @classmethod
    def of(cls, saved: dict[str, Tensor], clip: Clip) -> Self:
        branch = cls(*(saved[name] for name in ("images", "labels", "texts", "scale", "head")))
        branch.load_state_dict(saved)
        branch.encode = clip.image_features
        return branch
