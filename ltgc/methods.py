"""The methods that are compared: which images each draws, how, and what it mixes (§3.2, §4.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ltgc import samplers
from ltgc.params import Method


@dataclass(frozen=True)
class Draw:
    """One side of a batch: which images, and how they are drawn."""

    data: Literal["original", "generated", "both"]  # D_o, D_g, D_o ∪ D_g
    sampling: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a method draws x_i and, if it mixes, x_j."""

    i: Draw
    j: Draw | None = None  # None: no mixing
    needs_generated: bool = False  # without D_g it would be another method


# Table 4 and the CLIP rows of Tables 1 and 2. None: nothing is trained.
METHODS: dict[Method, Recipe | None] = {
    "clip_zero_shot": None,
    "clip_finetune": Recipe(Draw("original", samplers.uniform)),
    "no_balancemix": Recipe(Draw("both", samplers.uniform), needs_generated=True),
    "balanced_sample": Recipe(Draw("both", samplers.class_balanced)),
    "mixup": Recipe(Draw("both", samplers.uniform), Draw("both", samplers.uniform)),
    "balancemix": Recipe(
        Draw("original", samplers.class_balanced), Draw("generated", samplers.uniform), needs_generated=True
    ),
}
