"""The losses, name -> loss of logits and targets; the mean over the batch.

logits: (B, C). targets: labels (B,) int64, or soft targets (B, C) float32: the weights of the classes in an image
(Eq. 4), which sum to 1 unless a label counts for more or less (train.generated.weight). A loss that is linear in
the one-hot vector of its label is the same sum over the classes for a soft target; that is all of them but LDAM.

prior: (C,) share of each class in the targets of the whole run (batches.class_prior), not in the data set:
where a method samples classes evenly, nothing is left to correct, and correcting again would favour the tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import LossSettings, TrainSettings

Loss = Callable[[Tensor, Tensor], Tensor]

NEVER = 1e-12  # the prior of a class that a run never shows: its logarithm stays finite


@dataclass(frozen=True)
class Classes:
    """What a loss may know of the classes it is trained on; on the device of the logits."""

    prior: Tensor  # (C,) float32, sums to 1
    counts: Tensor  # (C,) images of the data that the method draws from
    logit_scale: float


def balanced_softmax(logits: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """-log(π_y e^{z_y} / Σ π_c e^{z_c}) (Ren et al. 2020, Eq. 3): `logit_adjusted` at τ = 1."""
    return logit_adjusted(logits, targets, prior, tau=1.0)


def logit_adjusted(logits: Tensor, targets: Tensor, prior: Tensor, tau: float) -> Tensor:
    """Cross-entropy of z + τ log π (Menon et al. 2021, Eq. 10)."""
    return F.cross_entropy(logits + tau * prior.clamp_min(NEVER).log(), targets)


def lade(logits: Tensor, targets: Tensor, prior: Tensor, alpha: float, lam: float) -> Tensor:
    """LADE (Hong et al. 2021, §3.3): balanced softmax + α LADER, with a uniform test distribution p_u.

    LADER = Σ_c π_c (-mean of z_c over the images of c + log E_c + λ (log E_c)²),
    E_c = 1/B Σ_i p_u(y_i) / π(y_i) e^{z_c(x_i)}.
    An image of a soft target is of each class by its share. Classes without a share in this batch are left out:
    the mean over their images is not known. Of a batch cut among processes, each estimates from its own part.
    """
    shares = _shares(logits, targets)
    of_class = shares.sum(0)
    importance = shares @ (1 / (logits.shape[1] * prior.clamp_min(NEVER)))  # (B,)
    log_partition = torch.logsumexp(logits + importance.log()[:, None], 0) - torch.log(shares.sum())
    mean = (shares * logits).sum(0) / of_class.clamp_min(NEVER)
    lader = torch.where(of_class > 0, prior * (lam * log_partition**2 + log_partition - mean), 0.0).sum()
    return balanced_softmax(logits, targets, prior) + alpha * lader


def focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """-(1 - p_y)^γ log p_y (Lin et al. 2017, Eq. 4)."""
    log_p = F.log_softmax(logits, -1)
    missing = (-torch.expm1(log_p)).clamp_min(1e-6)  # 1 - p; at 0 a power below 1 has no finite slope
    return -(_shares(logits, targets) * missing**gamma * log_p).sum(-1).mean()


def ldam(logits: Tensor, targets: Tensor, counts: Tensor, max_margin: float, logit_scale: float) -> Tensor:
    """Cross-entropy of s (cos θ_y - Δ_y) against s cos θ_c, Δ_c ~ n_c^{-1/4} (Cao et al. 2019, Eq. 12 and 13).

    s is the head's logit scale; the rarest class has Δ = max_margin. n counts images, however they are sampled:
    the margin is what few examples cost, not what they weigh.
    Not for soft targets (`make` refuses them): Δ_y keeps the examples of y from the boundary; a mixture is an
    example of neither class, and a margin for both at once pushes each below the other.
    """
    rarest = counts[counts > 0].min()
    margins = max_margin * (rarest / counts.clamp_min(1)) ** 0.25  # (C,)
    return F.cross_entropy(logits - logit_scale * margins * _shares(logits, targets), targets)


def class_balanced(logits: Tensor, targets: Tensor, counts: Tensor, beta: float) -> Tensor:
    """Cross-entropy weighted by 1 / E_y, E_n = (1 - β^n) / (1 - β) the effective number of n images.

    Cui et al. 2019, Proposition 1 and the class-balanced softmax cross-entropy of §4; the weights sum to C.
    counts: (C,) float; by `LOSSES` the share of each class in the run x number of images.
    """
    weights = (1 - beta) / (1 - beta ** counts.clamp_min(1).double())
    weights = (weights * len(weights) / weights.sum()).float()
    return -(_shares(logits, targets) * weights * F.log_softmax(logits, -1)).sum(-1).mean()


def _shares(logits: Tensor, targets: Tensor) -> Tensor:
    """Targets of either kind as soft targets (B, C)."""
    return targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).to(logits.dtype)


LOSSES: dict[str, Callable[[LossSettings, Classes], Loss]] = {
    "cross_entropy": lambda s, c: F.cross_entropy,
    "balanced_softmax": lambda s, c: partial(balanced_softmax, prior=c.prior),
    "logit_adjusted": lambda s, c: partial(logit_adjusted, prior=c.prior, tau=s.tau),
    "lade": lambda s, c: partial(lade, prior=c.prior, alpha=s.lade_alpha, lam=s.lade_lambda),
    "focal": lambda s, c: partial(focal, gamma=s.gamma),
    "ldam": lambda s, c: partial(ldam, counts=c.counts, max_margin=s.max_margin, logit_scale=c.logit_scale),
    "class_balanced": lambda s, c: partial(class_balanced, counts=c.prior * c.counts.sum(), beta=s.beta),
}


def make(settings: TrainSettings, classes: Classes, soft_targets: bool) -> Loss:
    """The loss that train.loss names, for these classes.

    Raises LTGCError where the run has soft targets and the loss is not defined for them.
    """
    if soft_targets and settings.loss == "ldam":
        raise LTGCError(
            "train.loss: ldam has no soft targets, and this method mixes or weights labels "
            "(train.generated.weight); name another loss, or leave the method out of `methods`"
        )
    return LOSSES[settings.loss](settings.loss_settings, classes)
