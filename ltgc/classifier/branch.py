"""What makes logits beside a classifier's head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor, nn

from ltgc.clip.encoder import Clip


class Branch(nn.Module, ABC):
    """Saved as its state: parameters and buffers. `file` says which branch a run's folder holds."""

    file: ClassVar[str]  # below the model's folder

    @abstractmethod
    def forward(self, logits: Tensor, features: Tensor, images: Tensor) -> Tensor:
        """The classifier's logits (B, C).

        logits: of the head alone; features: (B, D), unit vectors; images: (B, 3, H, W), preprocessed.
        """

    @classmethod
    @abstractmethod
    def of(cls, saved: dict[str, Tensor], clip: Clip) -> Self:
        """The branch that has this state."""
