"""The classifier: CLIP's visual encoder, tuned or not, under a cosine or linear head."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ltgc.classifier import branches, tuning
from ltgc.classifier.branch import Branch
from ltgc.clip.encoder import Clip
from ltgc.pipeline.errors import LTGCError

HEAD = "head.safetensors"


class Classifier(nn.Module):
    """logits = scale * cos(image feature, weight), or with a bias scale * (unit feature · weight + bias).

    A branch (ltgc/classifier/branches.py) makes the logits of these and of what it knows besides.

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
        self.branch: Branch | None = None
        self.logit_scale = logit_scale
        cfg: Any = visual.preprocess_cfg  # open_clip leaves it on the visual tower
        # From 8-bit values to what CLIP's preprocessing gives: one multiplication and one addition.
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("gain", (1 / (255 * std)).to(head.device), persistent=False)
        self.register_buffer("offset", (-mean / std).to(head.device), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> logits (B, C), float32 whatever the encoder computes in.

        In bfloat16 the logits of a matching class, about 30 at OpenAI's scale of 100, would have steps of 0.125.
        """
        features = self.features(pixels)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.logits(features)
            return logits if self.branch is None else self.branch(logits, features, self.normalised(pixels))

    def logits(self, features: Tensor) -> Tensor:
        """Unit image features (B, D) float32 -> logits (B, C) of the head alone."""
        if self.bias is None:
            return self.logit_scale * features @ F.normalize(self.head, dim=-1).T
        return self.logit_scale * F.linear(features, self.head, self.bias)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> unit image features (B, D), float32."""
        return F.normalize(self.visual(self.normalised(pixels)).float(), dim=-1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float in [0, 255] -> what the visual encoder takes."""
        return pixels * self.gain + self.offset

    @property
    def classes(self) -> int:
        return len(self.head)

    @property
    def device(self) -> torch.device:
        return self.head.device

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
        modules = [module for module in (self.visual, self.branch) if module is not None]
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        matrices, rest = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
        if self.bias is None:
            rest.append(self.head)
        else:
            matrices.append(self.head)
            rest.append(self.bias)
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]

    def save(self, folder: Path) -> None:
        """Write the head, what was trained of the encoder, and the branch into `folder`."""
        saved = {"weight": self.head, "logit_scale": torch.tensor(self.logit_scale, dtype=torch.float64)}
        if self.bias is not None:
            saved["bias"] = self.bias
        save_file({name: value.detach().cpu().contiguous() for name, value in saved.items()}, folder / HEAD)
        tuning.save(self.visual, folder)
        if self.branch is not None:
            branches.save(self.branch, folder)


def load_classifier(folder: Path, clip: Clip) -> Classifier:
    """The classifier that `Classifier.save` wrote, on a copy of the visual encoder of `clip`, for inference."""
    if not (folder / HEAD).is_file():
        raise LTGCError(f"{folder / HEAD}: not there; run `dvc repro` to train it")
    saved = load_file(folder / HEAD)
    visual = tuning.load(deepcopy(clip.model.visual), folder)
    scale = float(saved.pop("logit_scale"))
    head = {name: value.to(clip.device) for name, value in saved.items()}
    classifier = Classifier(visual, head["weight"], scale, head.get("bias"))
    classifier.branch = branches.load(folder, clip)
    return classifier.to(clip.device).eval().requires_grad_(False)
