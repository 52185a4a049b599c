"""Whether the drawings tell anything about the photos, where no validation split can say it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.classifier.features import Features, Rows
from ltgc.training.probe import parts, predicted

STEPS, LR = 100, 0.01  # of Adam, on all drawings at once
# The probe's accuracy above chance, as a fraction of the texts': between these the weight rises linearly to 1.
# It was 1.03 for the drawings as they are and 0.73 for drawings with a strong colour cast and grain, which still
# gained 2 points over the control on validation.
USELESS, HARMLESS = 0.25, 0.75


def drawings_weight(
    photos: tuple[Features, Tensor], drawings: tuple[Features, Tensor], texts: Tensor, logit_scale: float
) -> float:
    """How much the drawings are worth, in [0, 1].

    A linear probe is trained on the drawings alone, from the text features of the classes, and tested on the
    photos, none of which it has seen, against the texts themselves. Only classes that have both count. Where the
    probe loses most of what the texts know, the drawings show other things, or show them in a way that does not
    carry over to photos.

    Out-of-fold accuracy of photos with the drawings against without them would be the obvious evidence. It is not
    used because it misleads: the few photos of a rare class look alike, so that photos alone foretell one another
    best (91 % against 86 % with drawings, where on validation images the drawings brought 59 % to 72 %).

    photos, drawings: unit features (N, D) of CLIP and labels (N,), on the CPU; texts: unit features (C, D).
    """
    (x, y), (x_drawn, y_drawn) = photos, drawings
    classes = torch.tensor(sorted(set(y.tolist()) & set(y_drawn.tolist())), dtype=torch.int64)
    if len(classes) < 2:
        return 1.0
    x, y = _of(classes, x, y, texts.device)
    x_drawn, y_drawn = _of(classes, x_drawn, y_drawn, texts.device)
    before = texts[classes.to(texts.device)].clone()
    head = before.clone().requires_grad_()
    optimizer = torch.optim.Adam([head], LR)
    weight = 1 / (len(classes) * y_drawn.bincount())  # every class counts as much
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in parts(len(y_drawn), len(head)):
            logits = logit_scale * x_drawn[part] @ F.normalize(head, dim=-1).T
            F.cross_entropy(logits, y_drawn[part], weight, reduction="sum").backward()
        optimizer.step()
    chance = 1 / len(classes)
    probed = _accuracy(x, F.normalize(head.detach(), dim=-1), y) - chance
    known = max(_accuracy(x, before, y) - chance, chance)  # texts that know nothing demand little
    return min(1.0, max(0.0, (probed / known - USELESS) / (HARMLESS - USELESS)))


def _of(classes: Tensor, features: Features, labels: Tensor, device: torch.device) -> tuple[Features, Tensor]:
    """The features of these classes, and their labels as positions in `classes`, on the device."""
    kept = torch.isin(labels, classes).nonzero()[:, 0]
    return Rows(features, kept), torch.searchsorted(classes, labels[kept]).to(device)


def _accuracy(features: Features, head: Tensor, labels: Tensor) -> float:
    """The mean accuracy of the classes, in [0, 1]."""
    right = (predicted(head, features) == labels).double()
    return float((labels.bincount(right) / labels.bincount()).mean())
