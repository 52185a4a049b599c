"""The methods that are compared: what each samples, what it mixes, and its own settings (§3.2, §4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training.samplers import CLASS_BALANCED, UNIFORM, Sampler

Data = Literal["original", "generated", "both"]  # D_o, D_g, D_o ∪ D_g


@dataclass(frozen=True)
class Sampling:
    data: Data
    sampler: Sampler


@dataclass(frozen=True)
class Recipe:
    """A method: how it samples x_i and x_j, and which settings are its own."""

    i: Sampling | None  # None: nothing is trained
    j: Sampling | None = None  # None: nothing is mixed
    needs_generated: bool = False  # without D_g it would be another method
    train: Mapping[str, Any] = field(default_factory=dict)  # keys of params.yaml's train that it sets itself

    def settings(self, train: TrainSettings) -> TrainSettings:
        """`train` with this method's own settings in it."""
        return TrainSettings.model_validate(train.model_dump() | dict(self.train))

    def samplings(self, train: TrainSettings) -> list[Sampling]:
        """Of x_i, and of x_j where the method mixes.

        Where D_o is mixed with D_g, train.mixing.balanced says which of them is sampled class-balanced.
        """
        samplings = [sampling for sampling in (self.i, self.j) if sampling]
        if {sampling.data for sampling in samplings} != {"original", "generated"}:
            return samplings
        balanced = BALANCED[train.mixing.balanced]
        return [replace(s, sampler=CLASS_BALANCED if s.data in balanced else UNIFORM) for s in samplings]


BALANCED: dict[str, set[Data]] = {
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

# Table 4 and the CLIP rows of Tables 1 and 2, then methods that are not in the paper.
METHODS: dict[Method, Recipe] = {
    "clip_zero_shot": Recipe(None),
    "clip_finetune": Recipe(Sampling("original", UNIFORM)),
    "no_balancemix": Recipe(Sampling("both", UNIFORM), needs_generated=True),
    "balanced_sample": Recipe(Sampling("both", CLASS_BALANCED)),
    "mixup": Recipe(Sampling("both", UNIFORM), Sampling("both", UNIFORM)),
    "balancemix": Recipe(
        Sampling("original", CLASS_BALANCED), Sampling("generated", UNIFORM), needs_generated=True
    ),
    "lift": Recipe(Sampling("original", UNIFORM), train=LIFT),
    "ltgc_lift": Recipe(
        Sampling("original", CLASS_BALANCED), Sampling("generated", UNIFORM), needs_generated=True, train=LIFT
    ),
}
