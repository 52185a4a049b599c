"""The classifier: CLIP's visual encoder, tuned or not, under a cosine or linear head; how the head starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ltgc import devices, tuning
from ltgc.artifacts import ClassRecord, ClassTemplate, ExistingDescription, ExtendedDescription
from ltgc.clip import Clip
from ltgc.errors import LTGCError
from ltgc.pixels import Pixels, batches

HEAD = "head.safetensors"
# LIFT's test-time ensembling: images of 224 px enlarged by 24 px, cut into five crops of 224 px.
ENLARGED_BY = 24 / 224


class Classifier(nn.Module):
    """logits = scale * cos(image feature, weight), or with a bias scale * (unit feature · weight + bias).

    head: (C, D) class weights, any length; bias: (C,) of the linear head, None for the cosine head;
    visual: preprocessed images (B, 3, H, W) -> features (B, D). Both heads give the same logits at the start,
    with unit weights and no bias; the linear one can then learn how long a class's weights are.
    """

    gain: Tensor  # (3, 1, 1)
    offset: Tensor

    def __init__(self, visual: nn.Module, head: Tensor, logit_scale: float, bias: Tensor | None = None) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Parameter(head.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.logit_scale = logit_scale
        cfg: Any = visual.preprocess_cfg  # open_clip leaves it on the visual tower
        # From 8-bit values to what CLIP's preprocessing gives: one multiplication and one addition.
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("gain", (1 / (255 * std)).to(head.device), persistent=False)
        self.register_buffer("offset", (-mean / std).to(head.device), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> logits (B, C)."""
        features = self.features(pixels)
        if self.bias is None:
            return self.logit_scale * features @ F.normalize(self.head, dim=-1).T
        return self.logit_scale * F.linear(features, self.head, self.bias)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> unit image features (B, D)."""
        return F.normalize(self.visual(pixels * self.gain + self.offset), dim=-1)

    def train(self, mode: bool = True) -> Classifier:
        """As nn.Module's; a frozen encoder stays as it is in evaluation (batch norm's running means)."""
        super().train(mode)
        if not any(p.requires_grad for p in self.visual.parameters()):
            self.visual.eval()
        return self

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """What is trained, for the optimizer: matrices with weight decay, the rest without.

        The cosine head is of the rest: its length does not enter the logits, decay would only change its step.
        """
        trained = [p for p in self.visual.parameters() if p.requires_grad]
        matrices, rest = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
        if self.bias is None:
            rest.append(self.head)
        else:
            matrices.append(self.head)
            rest.append(self.bias)
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]

    def save(self, folder: Path) -> None:
        """Write the head, and what was trained of the encoder, into `folder`."""
        saved = {"weight": self.head, "logit_scale": torch.tensor(self.logit_scale, dtype=torch.float64)}
        if self.bias is not None:
            saved["bias"] = self.bias
        save_file({name: value.detach().cpu().contiguous() for name, value in saved.items()}, folder / HEAD)
        tuning.save(self.visual, folder)


def load(folder: Path, clip: Clip) -> Classifier:
    """The classifier that `Classifier.save` wrote, on a copy of the visual encoder of `clip`, for inference."""
    if not (folder / HEAD).is_file():
        raise LTGCError(f"{folder / HEAD}: not there; run `dvc repro` to train it")
    saved = load_file(folder / HEAD)
    visual = tuning.load(deepcopy(clip.model.visual), folder)
    scale = float(saved.pop("logit_scale"))
    head = {name: value.to(clip.device) for name, value in saved.items()}
    classifier = Classifier(visual, head["weight"], scale, head.get("bias"))
    return classifier.to(clip.device).eval().requires_grad_(False)


def class_texts(
    init: Literal["templates", "class_names"],
    classes: Sequence[ClassRecord],
    templates: Sequence[ClassTemplate],
) -> list[str]:
    """The text that stands for each class at the start, by label: its template C_y, or its bare name.

    Raises LTGCError naming a class without a template.
    """
    if init == "class_names":
        return [f"A photo of the class {c.name}" for c in classes]
    texts = {template.label: template.template for template in templates}
    for c in classes:
        if c.label not in texts:
            raise LTGCError(
                f"descriptions/templates.jsonl: no template of class {c.name!r}; run `dvc repro templates`"
            )
    return [texts[c.label] for c in classes]


@dataclass(frozen=True)
class HeadSource:
    """What a head can start from. The last two are read only where they are asked for."""

    clip: Clip
    classes: Sequence[ClassRecord]
    templates: Sequence[ClassTemplate]
    descriptions: Callable[[], Sequence[ExistingDescription | ExtendedDescription]]
    photos: Callable[[], tuple[Pixels, Tensor]]  # D_o and its labels (N,)


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
    pixels, labels = source.photos()
    missing = set(range(len(source.classes))) - set(labels.tolist())
    if missing:
        name = source.classes[min(missing)].name
        raise LTGCError(f"train.head_init: class_means needs a training photo of each class, {name!r} has none")
    encoder = Classifier(source.clip.model.visual, torch.empty(0, 0, device=source.clip.device), 1.0)
    parts = torch.arange(len(labels)).split(256)
    features = torch.cat([encoder.features(pixels[part]) for part in parts])
    return _mean_of_classes(features, labels, len(source.classes))


def _mean_of_classes(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Unit vectors (classes, D) in the direction of each class's mean; features: (N, D), labels: (N,)."""
    sums = torch.zeros(classes, features.shape[1], device=features.device)
    return F.normalize(sums.index_add(0, labels.to(features.device), features), dim=-1)


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


@torch.inference_mode()
def probabilities(
    classifier: Classifier, pixels: Pixels, batch_size: int, ensemble: bool = False, workers: int = 0
) -> Tensor:
    """Class probabilities (N, C), float32 on the CPU, of all images in order. ensemble: over five crops.

    Where several processes run, each computes its share, and each gets all. workers: as of `pixels.batches`.
    """
    logits = ensembled if ensemble else Classifier.__call__
    reads = [(part, None) for part in devices.share(len(pixels)).split(batch_size) if len(part)]
    rows = [classifier.head.new_zeros(0, len(classifier.head))]
    for images in batches(pixels, reads, classifier.head.device, workers):
        rows.append(logits(classifier, images).softmax(-1))
    return devices.gather(torch.cat(rows), len(pixels)).cpu()


def ensembled(classifier: Classifier, pixels: Tensor) -> Tensor:
    """Test-time ensembling (Shi et al. 2024): the mean logits (B, C) of five crops, the corners and the centre.

    pixels: (B, 3, H, W) in [0, 255]. They are enlarged by ENLARGED_BY and cut back to H x W.
    """
    height, width = pixels.shape[-2:]
    down, right = (round(side * ENLARGED_BY) for side in (height, width))
    larger = F.interpolate(pixels.float(), (height + down, width + right), mode="bicubic").clamp(0, 255)
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [larger[..., top : top + height, left : left + width] for top, left in corners]
    return torch.stack([classifier(crop) for crop in crops]).mean(0)


def accuracy(
    classifier: Classifier, pixels: Pixels, labels: Tensor, batch_size: int, workers: int = 0
) -> float | None:
    """Top-1 in percent with two decimals, or None without images. labels: (N,) int64."""
    if not len(labels):
        return None
    correct = probabilities(classifier, pixels, batch_size, workers=workers).argmax(-1) == labels
    return round(100 * correct.float().mean().item(), 2)
