"""What linear probes decide before training: how many drawings a run samples, and the head it starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltgc.classifier.network import Classifier
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import probe
from ltgc.training.inputs import Inputs, Labelled
from ltgc.training.methods import Recipe
from ltgc.training.plan import TrainingSet
from ltgc.training.priors import image_shares, source_priors


def weigh_drawings(
    recipe: Recipe, settings: TrainSettings, classifier: Classifier, drawings: Sequence[Labelled], inputs: Inputs
) -> tuple[TrainSettings, float | None]:
    """The settings with the share of drawings that they are worth, and that worth; None: not asked for.

    They count in full where a probe on photos and drawings is right more often on validation images than a probe
    on photos alone, by more than chance explains, and not at all otherwise. Where some class has no validation
    image, the training split decides (ltgc/training/transfer.py).
    """
    if not (settings.generated.probe and settings.generated.share and drawings):
        return settings, None
    if inputs.unvalidated:
        weight = round(inputs.drawings_weight, 2)
    else:
        both, photos = (
            _probed(recipe, _with_share(settings, share), classifier, drawings, inputs)
            for share in (settings.generated.share, 0.0)
        )
        weight = float(probe.helps(both, photos, *_validation(inputs, classifier)))
    return _with_share(settings, weight * settings.generated.share), weight


def probe_first(
    recipe: Recipe, settings: TrainSettings, classifier: Classifier, drawings: Sequence[Labelled], inputs: Inputs
) -> float:
    """Give `classifier` the head of a probe, between its own and the trained one; returns how far it went (alpha).

    The probe sees the images as the first phase of the run samples them.
    """
    start = classifier.head.detach()
    trained = _probed(recipe, settings, classifier, drawings, inputs)
    if inputs.unvalidated:
        head, alpha = probe.between(start, trained, probe.SAFE), probe.SAFE
    else:
        head, alpha = probe.choose(start, trained, *_validation(inputs, classifier))
    with torch.no_grad():
        classifier.head.copy_(head)
    return alpha


def _probed(
    recipe: Recipe, settings: TrainSettings, classifier: Classifier, drawings: Sequence[Labelled], inputs: Inputs
) -> Tensor:
    photos = inputs.photos("train")
    features, labels = inputs.features([*photos, *drawings])
    data = TrainingSet(features, labels, original=len(photos))
    prior = torch.zeros(1, len(classifier.head))
    if settings.generated.adjust:
        prior = source_priors(recipe, data, settings, len(classifier.head))[torch.where(data.drawing, 0, 1)]
    shares = image_shares(recipe, data, settings)
    device = classifier.head.device
    samples = probe.Samples(features, labels.to(device), shares.to(device), prior.to(device))
    return probe.train_head(classifier.head, samples, classifier.logit_scale)


def _validation(inputs: Inputs, classifier: Classifier) -> tuple[Tensor, Tensor]:
    features, labels = inputs.features(inputs.photos("val"))
    return features, labels.to(classifier.head.device)


def _with_share(settings: TrainSettings, share: float) -> TrainSettings:
    generated = settings.generated.model_copy(update={"share": share})
    return settings.model_copy(update={"generated": generated})
