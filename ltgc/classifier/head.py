"""What the head of a classifier starts from (train.head_init)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ltgc.classifier.features import Features
from ltgc.clip.class_texts import class_texts
from ltgc.clip.encoder import Clip
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.pipeline.errors import LTGCError


@dataclass(frozen=True)
class HeadSource:
    """What a head can start from. The last two are read only where they are asked for."""

    clip: Clip
    classes: Sequence[ClassRecord]
    templates: Sequence[ClassTemplate]
    descriptions: Callable[[], Sequence[ExistingDescription | ExtendedDescription]]
    photos: Callable[[], tuple[Features, Tensor]]  # CLIP's features of D_o before training, and its labels (N,)


def initial_head(init: str, source: HeadSource) -> Tensor:
    """The class weights (C, D) that train.head_init asks for, unit vectors on CLIP's device."""
    return HEAD_INITS[init](source)


def _mean_of_descriptions(source: HeadSource) -> Tensor:
    """The mean over the kept descriptions of a class, existing and extended, each a unit text feature.

    A class without any, as all are that are not in the tail, starts from its template.
    """
    kept = [d for d in source.descriptions() if d.kept and d.description]
    described = {d.label for d in kept}
    templates = class_texts("templates", source.classes, source.templates)
    texts = [d.description or "" for d in kept] + [t for y, t in enumerate(templates) if y not in described]
    labels = [d.label for d in kept] + [y for y in range(len(templates)) if y not in described]
    return _mean_of_classes(source.clip.text_features(texts), torch.tensor(labels), len(templates))


@torch.inference_mode()
def _mean_of_photos(source: HeadSource) -> Tensor:
    """The mean over the training photos of a class, each a unit feature of CLIP before training."""
    features, labels = source.photos()
    missing = set(range(len(source.classes))) - set(labels.tolist())
    if missing:
        name = source.classes[min(missing)].name
        raise LTGCError(f"train.head_init: class_means needs a training photo of each class, {name!r} has none")
    return _mean_of_classes(features, labels, len(source.classes))


def _mean_of_classes(features: Features, labels: Tensor, classes: int) -> Tensor:
    """Unit vectors (classes, D) in the direction of each class's mean; features: (N, D), labels: (N,)."""
    first = features[torch.tensor([0])]
    sums = first.new_zeros(classes, first.shape[1])
    for part in torch.arange(len(features)).split(4096):
        sums.index_add_(0, labels[part].to(sums.device), features[part])
    return F.normalize(sums, dim=-1)


def _random(source: HeadSource) -> Tensor:
    """Directions from torch's global generator, even over the sphere."""
    like = source.clip.text_features(["a photo"])
    return F.normalize(torch.randn(len(source.classes), like.shape[1]), dim=-1).to(like.device)


HEAD_INITS: dict[str, Callable[[HeadSource], Tensor]] = {
    "templates": lambda s: s.clip.text_features(class_texts("templates", s.classes, s.templates)),
    "class_names": lambda s: s.clip.text_features(class_texts("class_names", s.classes, s.templates)),
    "descriptions": _mean_of_descriptions,
    "class_means": _mean_of_photos,
    "random": _random,
}


def initial_bias(head: str, classes: int) -> Tensor | None:
    """The bias (C,) that a head of this kind (train.head) starts with, or None for the cosine head."""
    return {"cosine": None, "linear": torch.zeros(classes)}[head]
