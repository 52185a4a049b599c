"""What linear probes say of the parts of ltgc_plus, and of drawings that are worse than they are.

    python benchmarks/recipe_parts.py      # after `dvc repro`; a minute, on frozen features: no encoder is trained

Each validation class is halved 20 times: what validation chooses is chosen on one half and measured on the other.
Prints accuracy less that of the control (a probe on photos alone), in points: mean over the halves, and least.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from embedded.styles import STYLES, restyle
from ltgc.classifier.features import clip_features
from ltgc.clip.class_texts import class_texts
from ltgc.clip.weights import load_clip
from ltgc.data.roots import image_root
from ltgc.pipeline import params
from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import probe
from ltgc.training.first_head import probed_head
from ltgc.training.inputs import Inputs, Labelled
from ltgc.training.methods import METHODS
from ltgc.training.plan import TrainingSet

HALVES = 20


def main() -> None:
    section = params.load("data", "clip", "train")
    clip = load_clip(section.clip, "cpu")
    inputs = Inputs(clip, image_root(section.data))
    recipe, own = METHODS["ltgc_plus"], section.train.of("ltgc_plus")
    texts = clip.text_features(class_texts("templates", inputs.classes, inputs.templates))
    photos, photo_labels = features(inputs, inputs.photos("train"))
    drawings, labels = features(inputs, inputs.accepted)
    pixels, _ = inputs.load(inputs.accepted)
    validation = features(inputs, inputs.photos("val"))
    groups = {"Many": [c.shot == "many" for c in inputs.classes], "Few": [c.shot == "few" for c in inputs.classes]}
    torch.manual_seed(0)

    def head(settings: TrainSettings, x: Tensor, y: Tensor) -> Tensor:
        data = TrainingSet(torch.cat([photos, x]), torch.cat([photo_labels, y]), original=len(photos))
        return probed_head(recipe, settings, texts, clip.logit_scale, data)

    control = head(changed(own, share=0.0), drawings, labels)
    halves = [half(validation[1]) for _ in range(HALVES)]

    def report(name: str, path: Sequence[Tensor]) -> None:
        rows, helped = [], 0
        for chosen in halves:
            on = tuple(tensor[chosen] for tensor in validation)
            off = tuple(tensor[~chosen] for tensor in validation)
            helps = probe.helps(path[-1], control, *on)
            ours, _ = probe.choose(path if helps else [texts, control], *on)
            less = of_classes(ours, *off) - of_classes(probe.choose([texts, control], *on)[0], *off)
            rows.append(
                [100 * less.mean().item()] + [100 * less[torch.tensor(g)].mean().item() for g in groups.values()]
            )
            helped += helps
        mean, least = np.mean(rows, 0), np.min(rows, 0)
        figures = ", ".join(
            f"{g} {m:+.1f} ({low:+.1f})" for g, m, low in zip(["All", *groups], mean, least, strict=True)
        )
        print(f"{name}: {figures}; the drawings counted in {helped} of {HALVES}", flush=True)

    both = head(own, drawings, labels)
    report("ltgc_plus", [texts, control, both])
    report("the head not on the way over photos", [texts, both])
    for part, change in {"share": None, "adjust": False, "photos_last": 0.0}.items():
        report(f"{part} {change}", [texts, control, head(changed(own, **{part: change}), drawings, labels)])
    for times in (1, 2):
        everything = torch.arange(len(labels))
        styled = clip_features(clip, restyled(pixels[everything], times))[everything]
        report(f"drawings in vintage style, {times} times", [texts, control, head(own, styled, labels)])
    wrong = labels[torch.randperm(len(labels))]
    report("drawings with wrong labels", [texts, control, head(own, drawings, wrong)])
    copies = torch.tensor([int(torch.multinomial((photo_labels == label).float(), 1)) for label in labels])
    report("copies of photos for drawings", [texts, control, head(own, photos[copies], labels)])


def features(inputs: Inputs, images: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """Unit features (N, D) and labels (N,), in memory."""
    of_images, labels = inputs.features(images)
    return of_images[torch.arange(len(labels))], labels


def changed(settings: TrainSettings, **generated: Any) -> TrainSettings:
    return settings.model_copy(update={"generated": settings.generated.model_copy(update=generated)})


def half(labels: Tensor) -> Tensor:
    """(N,) bool: half of the images of each class."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        images = (labels == label).nonzero()[:, 0]
        chosen[images[torch.randperm(len(images))[: len(images) // 2]]] = True
    return chosen


def of_classes(head: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """(C,) the accuracy of each class."""
    right = ((features @ head.T).argmax(-1) == labels).double()
    return labels.bincount(right) / labels.bincount()


def restyled(pixels: Tensor, times: int) -> Tensor:
    style, rng = STYLES["vintage"], np.random.default_rng(0)
    images = []
    for image in pixels:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        for _ in range(times):
            picture = restyle(picture, style, rng)
        images.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return torch.stack(images)


if __name__ == "__main__":
    main()
