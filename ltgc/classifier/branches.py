"""Classifiers whose logits come from more than the head: file in a run's folder -> the branch that it holds.

A branch knows its file: whoever loads a run needs no name of a method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ltgc.clip.encoder import Clip


class Branch(nn.Module, ABC):
    file: ClassVar[str]  # below the model's folder

    @abstractmethod
    def forward(self, logits: Tensor, features: Tensor, images: Tensor) -> Tensor:
        """The classifier's logits (B, C).

        logits: of the head alone; features: (B, D), unit vectors; images: (B, 3, H, W), preprocessed.
        """

    @classmethod
    @abstractmethod
    def of(cls, saved: dict[str, Tensor], clip: Clip) -> Self:
        """The branch that has these tensors."""


BRANCHES: list[type[Branch]] = []


def save(branch: Branch, folder: Path) -> None:
    """Write the branch into the folder of its run."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in branch.state_dict().items()}
    save_file(tensors, folder / branch.file)


def load(folder: Path, clip: Clip) -> Branch | None:
    """What `save` wrote; None for a classifier of encoder and head alone."""
    for kind in BRANCHES:
        if (folder / kind.file).exists():
            return kind.of(load_file(folder / kind.file), clip)
    return None
