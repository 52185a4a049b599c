"""The methods that are compared: which images each draws, how, what it mixes, and its settings (§3.2, §4.1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training import samplers


@dataclass(frozen=True)
class Side:
    """One side of a batch: which images, and how they are drawn."""

    data: Literal["original", "generated", "both"]  # D_o, D_g, D_o ∪ D_g
    sampling: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a method draws x_i and, if it mixes, x_j, and which settings are its own."""

    i: Side
    j: Side | None = None  # None: no mixing
    needs_generated: bool = False  # without D_g it would be another method
    train: Mapping[str, Any] = field(default_factory=dict)  # keys of params.yaml's train that it sets itself

    def settings(self, train: TrainSettings) -> TrainSettings:
        """`train` with this method's own settings in it."""
        return TrainSettings.model_validate(train.model_dump() | dict(self.train))

    def sides(self, train: TrainSettings) -> tuple[Side, Side | None]:
        """The draws of x_i and x_j; where they mix D_o with D_g, train.mixing.balanced says how each is drawn."""
        if self.j is None or self.j.data == self.i.data:
            return self.i, self.j
        balanced = BALANCED[train.mixing.balanced]
        i, j = (
            replace(draw, sampling=samplers.class_balanced if draw.data in balanced else samplers.uniform)
            for draw in (self.i, self.j)
        )
        return i, j


BALANCED: dict[str, set[str]] = {
    "original": {"original"},
    "generated": {"generated"},
    "both": {"original", "generated"},
    "none": set(),
}

# LIFT (Shi et al. 2024, "Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts"). Both of the pair
# start from the class templates: a semantic head, and the same one, so that only the generated images differ.
LIFT = {
    "tuning": "adaptformer",
    "head": "cosine",
    "head_init": "templates",
    "logit_scale": 25.0,  # LIFT's; OpenAI's CLIP has 100
    "loss": "logit_adjusted",
}

# Table 4 and the CLIP rows of Tables 1 and 2, then past the paper. None: nothing is trained.
METHODS: dict[Method, Recipe | None] = {
    "clip_zero_shot": None,
    "clip_finetune": Recipe(Side("original", samplers.uniform)),
    "no_balancemix": Recipe(Side("both", samplers.uniform), needs_generated=True),
    "balanced_sample": Recipe(Side("both", samplers.class_balanced)),
    "mixup": Recipe(Side("both", samplers.uniform), Side("both", samplers.uniform)),
    "balancemix": Recipe(
        Side("original", samplers.class_balanced), Side("generated", samplers.uniform), needs_generated=True
    ),
    "lift": Recipe(Side("original", samplers.uniform), train=LIFT),
    "ltgc_lift": Recipe(
        Side("original", samplers.class_balanced),
        Side("generated", samplers.uniform),
        needs_generated=True,
        train=LIFT,
    ),
}
