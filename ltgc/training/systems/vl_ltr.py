"""VL-LTR: class-wise visual-linguistic representation (Tian et al., ECCV 2022).

First half of the steps: image and text encoder are trained on pairs of an image and a sentence of its class. Then
the sentences of each class that are best at finding its images become its anchors. Second half: both encoders are
frozen, and the head and the attention to the anchors learn (ltgc/classifier/sentences.py). The sentences of a
class are its template and its kept descriptions. Numbers are those of the authors' code for ImageNet-LT.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltgc.classifier.network import Classifier
from ltgc.classifier.sentences import Sentences
from ltgc.clip.class_texts import class_texts
from ltgc.clip.encoder import Clip
from ltgc.training.batches import Batch
from ltgc.training.inputs import Inputs
from ltgc.training.losses import Loss
from ltgc.training.phases import Around, Objective, Setup, TrainingPhase
from ltgc.training.plan import TrainingSet, make_plan

ANCHORS = 64  # sentences of a class at most
SMOOTHING = 0.1  # of the targets of the first phase
TEACHER = 0.5  # share of CLIP's own opinion in them
HEAD_LR = 1e-3  # of the second phase; train.lr is that of the first


class Contrast(Around):
    """pixels, tokens -> the cosines of each image (B,) and each text (T,), times the scale: (B, T)."""

    def __init__(self, classifier: Classifier, clip: Clip) -> None:
        super().__init__(classifier)
        # CLIP's text encoder alone: its image encoder and its scale have no part in it.
        self.text: Any = deepcopy(clip.model, {id(clip.model.visual): nn.Identity()}).requires_grad_(True)
        for name in ("logit_scale", "logit_bias"):
            if (value := getattr(self.text, name, None)) is not None:
                value.requires_grad_(False)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        features, texts = self.classifier.features(pixels), self.text_features(tokens)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier.logit_scale * features @ texts.T

    def text_features(self, tokens: Tensor) -> Tensor:
        """Tokens (T, length) -> unit features (T, D)."""
        return F.normalize(self.text.encode_text(tokens).float(), dim=-1)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        matrices, rest = super().parameter_groups(weight_decay)
        for value in self.text.parameters():
            if value.requires_grad:
                (matrices if value.dim() > 1 else rest)["params"].append(value)
        return [matrices, rest]


class Apart(Around):
    """pixels -> the logits of the head and those of the sentences, (B, C) each."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features, branch = self.classifier.features(pixels), self.classifier.branch
        assert isinstance(branch, Sentences)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier.logits(features), branch.sentence_logits(features)


def phases(setup: Setup) -> Iterator[TrainingPhase]:
    classifier, clip = setup.classifier, setup.inputs.clip
    half = setup.settings.model_copy(update={"steps": max(1, setup.settings.steps // 2)})
    texts, labels = sentences(setup.inputs)
    tokens = clip.tokenize(clip.fitting(texts)).to(classifier.device)
    labels = labels.to(classifier.device)

    classifier.head.requires_grad_(False)
    network = Contrast(classifier, clip)
    plan = make_plan(setup.recipe, setup.data, half)
    yield TrainingPhase(network, plan, half, _contrast(setup, tokens, labels))

    with torch.no_grad():
        found = torch.cat([network.text_features(part) for part in tokens.split(256)])
        classifier.branch = branch = _branch(classifier, found, labels, setup.data)
        classifier.head.copy_(F.normalize(branch.anchors.sum(1), dim=-1))
    classifier.head.requires_grad_(True)
    classifier.visual.requires_grad_(False)
    later = half.model_copy(update={"lr": HEAD_LR})
    plan = make_plan(setup.recipe, setup.data, later)
    yield TrainingPhase(Apart(classifier), plan, later, _both(setup.loss(plan.soft)))


def sentences(inputs: Inputs) -> tuple[list[str], Tensor]:
    """The template of each class, then all kept descriptions, and their labels (S,)."""
    templates = class_texts("templates", inputs.classes, inputs.templates)
    kept = [(d.description, d.label) for d in inputs.descriptions if d.kept and d.description]
    labels = [*range(len(templates)), *(label for _, label in kept)]
    return [*templates, *(text for text, _ in kept)], torch.tensor(labels)


def contrastive(logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """The class-wise contrastive loss of pairs (§3.2), (): images against sentences and the reverse.

    logits: (B, B) of images and the sentences that were sampled for them; teacher: those of CLIP before training;
    labels: (B,). All sentences of an image's class are right, in equal shares.
    """
    same = (labels[:, None] == labels).float()
    targets = same / same.sum(-1, keepdim=True)
    smoothed = (1 - SMOOTHING) * targets + SMOOTHING / len(labels)
    value = torch.zeros((), device=logits.device)
    for student, known in ((logits, teacher), (logits.T, teacher.T)):
        value = value + (1 - TEACHER) * F.cross_entropy(student, smoothed) / 2
        value = value + TEACHER * F.cross_entropy(student, known.softmax(-1)) / 2
    return value


def scores(texts: Tensor, labels: Tensor, images: Tensor, image_labels: Tensor, scale: float) -> Tensor:
    """How badly each sentence finds the images of its class among all, (S,): the lowest are best (§3.3).

    The cross-entropy of the softmax over the images; those of the class are right, in equal shares.
    texts: (S, D), images: (N, D), unit features.
    """
    parts = []
    for text, label in zip(texts.split(256), labels.split(256), strict=True):
        log_p = (scale * text @ images.T).log_softmax(-1)
        of_class = (label[:, None] == image_labels).float()
        parts.append(-(of_class * log_p).sum(-1) / of_class.sum(-1).clamp_min(1))
    return torch.cat(parts)


def _branch(classifier: Classifier, texts: Tensor, labels: Tensor, data: TrainingSet) -> Sentences:
    """With the anchors of each class: of its sentences the ANCHORS that are best at finding its images."""
    parts = torch.arange(len(data.labels)).split(256)
    images = torch.cat([classifier.features(data.pixels[part].to(classifier.device)) for part in parts])
    badness = scores(texts, labels, images, data.labels.to(classifier.device), classifier.logit_scale)
    classes = []
    for label in range(classifier.classes):
        own = (labels == label).nonzero().squeeze(-1)
        classes.append(texts[own[badness[own].argsort(stable=True)[:ANCHORS]]])
    anchors = nn.utils.rnn.pad_sequence(classes, batch_first=True)
    counts = torch.tensor([len(own) for own in classes], device=anchors.device)
    missing = torch.arange(anchors.shape[1], device=anchors.device) >= counts[:, None]
    return Sentences(anchors, missing, torch.tensor(classifier.logit_scale))


def _contrast(setup: Setup, tokens: Tensor, labels: Tensor) -> Objective:
    """Of each image and a random sentence of its class. Of a batch cut in shares, each contrasts its own."""
    clip, of_images = setup.inputs.clip, setup.data.labels.to(labels.device)
    with torch.no_grad():
        known = torch.cat([clip.model.encode_text(part, normalize=True) for part in tokens.split(256)])
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    first = counts.cumsum(0) - counts

    def objective(network: nn.Module, batch: Batch) -> Tensor:
        own = of_images[batch.i]
        sampled = order[first[own] + (torch.rand(len(own), device=own.device) * counts[own]).long()]
        features = clip.image_features(clip.normalise(batch.pixels))
        logits = network(batch.pixels, tokens[sampled])
        return contrastive(logits, own, clip.logit_scale * features @ known[sampled].T)

    return objective


def _both(loss: Loss) -> Objective:
    def objective(network: nn.Module, batch: Batch) -> Tensor:
        visual, linguistic = network(batch.pixels)
        return loss(visual, batch.targets) + loss(linguistic, batch.targets)

    return objective
