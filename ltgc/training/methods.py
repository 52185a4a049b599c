"""The methods that are compared: what each samples, and what it mixes (§3.2, §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training.samplers import CLASS_BALANCED, SQUARE_ROOT, UNIFORM, Sampler, domain_balanced

Data = Literal["original", "generated", "both"]  # D_o, D_g, D_o ∪ D_g


@dataclass(frozen=True)
class Sampling:
    data: Data
    sampler: Sampler
    strength: float | None = None  # of the drawings; None: all of them


BOTH = Sampling("both", CLASS_BALANCED)


class Phase(NamedTuple):
    steps: int
    samplings: list[Sampling]  # of x_i, and of x_j where pairs are mixed


@dataclass(frozen=True)
class Recipe:
    """A method: how it samples x_i and x_j. Settings of its own are in params.yaml (train.own)."""

    i: Sampling | None  # None: nothing is trained
    j: Sampling | None = None  # None: nothing is mixed
    needs_generated: bool = False  # without D_g it would be another method
    needs_starts: bool = False  # the same of drawings that start from a photo
    curriculum: bool = False  # from drawings of the highest strength to those of the lowest, and to photos

    def phases(self, train: TrainSettings, strengths: Sequence[float] = ()) -> list[Phase]:
        """The parts of a run, one after another. strengths: of drawings that start from a photo, highest first.

        Where photos and drawings are sampled together and not mixed, train.generated.photos_last ends the run with
        photos alone, class-balanced. A curriculum gives each strength an equal part of the steps before.
        """
        samplings = self._samplings(train)
        last = round(train.steps * train.generated.photos_last) if self.i == BOTH and not self.j else 0
        ends = [Phase(last, [Sampling("original", CLASS_BALANCED)])]
        if not (self.curriculum and strengths):
            phases = [Phase(train.steps - last, samplings)]
        else:
            marks = [round((train.steps - last) * k / len(strengths)) for k in range(len(strengths) + 1)]
            phases = [
                Phase(end - start, [replace(sampling, strength=strength) for sampling in samplings])
                for strength, start, end in zip(strengths, marks, marks[1:], strict=False)
            ]
        return [phase for phase in phases + ends if phase.steps]

    def _samplings(self, train: TrainSettings) -> list[Sampling]:
        """Of x_i, and of x_j where the method mixes.

        Where D_o is mixed with D_g, train.mixing.balanced says which of them is sampled class-balanced. Where they
        are sampled together and class-balanced, train.generated.share says how many of a class are drawings.
        """
        if self.i == BOTH and train.generated.share is not None:
            return [Sampling("both", domain_balanced(train.generated.share))]
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

# Table 4 and the CLIP rows of Tables 1 and 2, then methods that are not in the paper.
METHODS: dict[Method, Recipe] = {
    "clip_zero_shot": Recipe(None),
    "clip_zero_shot_names": Recipe(None),
    "clip_finetune": Recipe(Sampling("original", UNIFORM)),
    "no_balancemix": Recipe(Sampling("both", UNIFORM), needs_generated=True),
    "balanced_sample": Recipe(BOTH),
    "mixup": Recipe(Sampling("both", UNIFORM), Sampling("both", UNIFORM)),
    "balancemix": Recipe(
        Sampling("original", CLASS_BALANCED), Sampling("generated", UNIFORM), needs_generated=True
    ),
    "balanced_photos": Recipe(Sampling("original", CLASS_BALANCED)),
    "ltgc_plus": Recipe(BOTH),
    # LIFT (Shi et al. 2024, "Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts"). Both of the pair
    # start from the class templates: a semantic head, and the same one, so that only the generated images differ.
    "lift": Recipe(Sampling("original", UNIFORM)),
    "ltgc_lift": Recipe(
        Sampling("original", CLASS_BALANCED), Sampling("generated", UNIFORM), needs_generated=True
    ),
    # DA-Fusion (Trabucco et al., ICLR 2024, "Effective Data Augmentation With Diffusion Models"): the control, but
    # half of the time a photo gives way to a drawing that starts from one of its class.
    "da_fusion": Recipe(BOTH, needs_generated=True, needs_starts=True),
    # DisCL (Liang et al., ICCV 2025, "Diffusion Curriculum"), its non-adaptive one for long tails.
    "discl": Recipe(BOTH, needs_generated=True, needs_starts=True, curriculum=True),
    # LIFT+ (Shi et al. 2025, "LIFT+: Lightweight Fine-Tuning for Long-Tail Learning"), and with BalanceMix.
    "lift_plus": Recipe(Sampling("original", UNIFORM)),
    "ltgc_lift_plus": Recipe(
        Sampling("original", CLASS_BALANCED), Sampling("generated", UNIFORM), needs_generated=True
    ),
    # Methods of several phases (ltgc/training/systems); the second of a pair has the drawings as well.
    "lpt": Recipe(Sampling("original", CLASS_BALANCED)),
    "ltgc_lpt": Recipe(BOTH, needs_generated=True),
    "vl_ltr": Recipe(Sampling("original", SQUARE_ROOT)),
    "ltgc_vl_ltr": Recipe(Sampling("both", SQUARE_ROOT), needs_generated=True),
    "rac": Recipe(Sampling("original", UNIFORM)),
    "ltgc_rac": Recipe(Sampling("both", UNIFORM), needs_generated=True),
}
