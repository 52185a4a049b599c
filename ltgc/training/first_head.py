"""What linear probes decide before training: how many drawings a run samples, and the head it starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ltgc.classifier.features import Features
from ltgc.classifier.network import Classifier
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import probe
from ltgc.training.inputs import Inputs, Labelled
from ltgc.training.methods import Recipe
from ltgc.training.plan import TrainingSet
from ltgc.training.priors import image_shares, photo_prior


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
) -> float | None:
    """Give `classifier` the head that a probe has trained, as far as validation says; returns how far that is.

    The head is on the way from its own, 0, to that of a probe, 1, on the images as the run samples them. Where
    train.generated.share sets how many of them are drawings, the probe at 1 is on photos alone, and a second one
    on both is at 2: so the drawings move the head as far as they help. None, and probe.SAFE of the way to the
    last, where some class has no validation image.
    """
    share = settings.generated.share
    shares = [0.0, share] if share and drawings else [share]
    probes = [_probed(recipe, _with_share(settings, s), classifier, drawings, inputs) for s in shares]
    path, place = [classifier.head.detach(), *probes], None
    if inputs.unvalidated:
        head = probe.at([path[0], path[-1]], probe.SAFE)
    else:
        head, place = probe.choose(path, *_validation(inputs, classifier))
    with torch.no_grad():
        classifier.head.copy_(head)
    return place


def probed_head(
    recipe: Recipe, settings: TrainSettings, head: Tensor, logit_scale: float, data: TrainingSet
) -> Tensor:
    """The head (C, D) that a probe trains from `head`, on images as the whole run samples them.

    data: its pixels are features (N, D) on the device of the head.
    """
    shares = image_shares(recipe, data, settings)
    priors = torch.zeros(2, len(head))  # of drawings, and of photos
    if settings.generated.adjust:
        priors[1] = photo_prior(data.labels, data.drawing, shares, len(head)).log()
    columns = (data.labels, shares, priors, (~data.drawing).long())
    samples = probe.Samples(data.pixels, *(tensor.to(head.device) for tensor in columns))
    return probe.train_head(head, samples, logit_scale)


def _probed(
    recipe: Recipe, settings: TrainSettings, classifier: Classifier, drawings: Sequence[Labelled], inputs: Inputs
) -> Tensor:
    photos = inputs.photos("train")
    images = [*photos, *drawings]
    data = TrainingSet(*inputs.features(images), original=len(photos), strengths=inputs.strengths(images))
    return probed_head(recipe, settings, classifier.head, classifier.logit_scale, data)


def _validation(inputs: Inputs, classifier: Classifier) -> tuple[Features, Tensor]:
    features, labels = inputs.features(inputs.photos("val"))
    return features, labels.to(classifier.head.device)


def _with_share(settings: TrainSettings, share: float | None) -> TrainSettings:
    generated = settings.generated.model_copy(update={"share": share})
    return settings.model_copy(update={"generated": generated})
