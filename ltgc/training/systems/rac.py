"""RAC: Retrieval Augmented Classification (Long et al., CVPR 2022). One phase.

The encoder and a branch that retrieves texts (ltgc/classifier/memory.py) are trained together, on the sum of their
logits. The memory holds the images that the method samples, and all kept descriptions; no training image retrieves
itself or its own description. RAC trains a text encoder that reads the retrieved labels as one text. CLIP's has no
room for so many descriptions: it reads each text by itself, once, and a layer that is trained reads the results.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ltgc.classifier.memory import Memory
from ltgc.clip.class_texts import class_texts
from ltgc.training.batches import Batch
from ltgc.training.phases import Around, Setup, TrainingPhase
from ltgc.training.plan import make_plan


class Retrieved(Around):
    """pixels and the texts that are retrieved for them -> logits (B, C)."""

    def forward(self, pixels: Tensor, texts: Tensor) -> Tensor:
        features, memory = self.classifier.features(pixels), self.classifier.branch
        assert isinstance(memory, Memory)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier.logits(features) + memory.text_logits(texts)


def phases(setup: Setup) -> Iterator[TrainingPhase]:
    classifier, clip = setup.classifier, setup.inputs.clip
    memory, retrieved = remember(setup)
    memory.encode = clip.image_features
    classifier.branch = memory
    plan = make_plan(setup.recipe, setup.data, setup.settings)
    loss = setup.loss(plan.soft)

    def objective(network: nn.Module, batch: Batch) -> Tensor:
        return loss(network(batch.pixels, retrieved[batch.i]), batch.targets)

    yield TrainingPhase(Retrieved(classifier), plan, setup.settings, objective)


def remember(setup: Setup) -> tuple[Memory, Tensor]:
    """The memory, and what it retrieves for each of its images, (N, ranks)."""
    inputs, device = setup.inputs, setup.classifier.device
    templates = class_texts("templates", inputs.classes, inputs.templates)
    described = sorted({d.description for d in inputs.descriptions if d.kept and d.description})
    features, labels = inputs.features(setup.images)
    texts = inputs.clip.text_features([*templates, *described])
    scale = torch.tensor(setup.classifier.logit_scale, device=device)
    images = features[torch.arange(len(labels))]
    memory = Memory(images, labels.to(device), texts.clone(), scale, setup.classifier.head)

    rows = {text: len(templates) + row for row, text in enumerate(described)}
    own = [rows.get(inputs.texts.get(file.path, ""), -1) for file, _ in setup.images]
    all_own = torch.arange(len(images), device=device), torch.tensor(own, device=device)
    parts = torch.arange(len(images)).split(256)
    nearest = [memory.nearest(images[part], (all_own[0][part], all_own[1][part])) for part in parts]
    return memory, torch.cat(nearest)
