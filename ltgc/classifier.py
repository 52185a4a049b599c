"""The classifier: CLIP's visual encoder, with or without LoRA, under a cosine head."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ltgc.artifacts import ClassRecord, ClassTemplate
from ltgc.clip import Clip
from ltgc.errors import LTGCError
from ltgc.pixels import Pixels

ADAPTER = "adapter"
HEAD = "head.safetensors"


class Classifier(nn.Module):
    """logits = scale * cos(image feature, class weight).

    head: (C, D) class weights, any length; visual: preprocessed images (B, 3, H, W) -> features (B, D).
    """

    gain: Tensor  # (3, 1, 1)
    offset: Tensor

    def __init__(self, visual: nn.Module, head: Tensor, logit_scale: float) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Parameter(head.detach().clone())
        self.logit_scale = logit_scale
        cfg: Any = visual.preprocess_cfg  # open_clip leaves it on the visual tower
        # From 8-bit values to what CLIP's preprocessing gives: one multiplication and one addition.
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("gain", (1 / (255 * std)).to(head.device), persistent=False)
        self.register_buffer("offset", (-mean / std).to(head.device), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> logits (B, C)."""
        features = self.visual(pixels * self.gain + self.offset)
        return self.logit_scale * F.normalize(features, dim=-1) @ F.normalize(self.head, dim=-1).T

    def save(self, folder: Path) -> None:
        """Write the head, and the adapter if there is one, into `folder`."""
        scale = torch.tensor(self.logit_scale, dtype=torch.float64)
        save_file({"weight": self.head.detach().cpu().contiguous(), "logit_scale": scale}, folder / HEAD)
        visual: Any = self.visual
        if hasattr(visual, "peft_config"):
            from ltgc import lora  # with peft, 0.6 s to import, which zero-shot does not need

            lora.save_adapter(visual, folder / ADAPTER)


def load(folder: Path, clip: Clip) -> Classifier:
    """The classifier that `Classifier.save` wrote, on a copy of the visual encoder of `clip`, for inference."""
    if not (folder / HEAD).is_file():
        raise LTGCError(f"{folder / HEAD}: not there; run `dvc repro` to train it")
    saved = load_file(folder / HEAD)
    visual = deepcopy(clip.model.visual)
    if (folder / ADAPTER).is_dir():
        from ltgc import lora

        visual = lora.load_adapter(visual, folder / ADAPTER)
    classifier = Classifier(visual, saved["weight"].to(clip.device), float(saved["logit_scale"]))
    return classifier.eval().requires_grad_(False)


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


@torch.inference_mode()
def probabilities(classifier: Classifier, pixels: Pixels, batch_size: int) -> Tensor:
    """Class probabilities (N, C), float32 on the CPU, of all images in order."""
    parts = torch.arange(len(pixels)).split(batch_size)
    return torch.cat([classifier(pixels[part]).softmax(-1).cpu() for part in parts])


def accuracy(classifier: Classifier, pixels: Pixels, labels: Tensor, batch_size: int) -> float | None:
    """Top-1 in percent with two decimals, or None without images. labels: (N,) int64."""
    if not len(labels):
        return None
    correct = probabilities(classifier, pixels, batch_size).argmax(-1) == labels
    return round(100 * correct.float().mean().item(), 2)
