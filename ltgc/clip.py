"""Loading CLIP with open_clip, and its features: unit vectors of images and of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor

from ltgc import params
from ltgc.errors import LTGCError


@dataclass(frozen=True)
class Clip:
    """A frozen CLIP with its preprocessing."""

    model: Any  # open_clip.CLIP, in eval mode
    preprocess: Callable[[Image.Image], Tensor]  # RGB image -> (3, H, W) float32, normalised
    tokenize: Callable[[list[str]], Tensor]  # N texts -> (N, context length) int64
    device: torch.device

    @property
    def logit_scale(self) -> float:
        """CLIP's inverse temperature (about 100 for OpenAI's models)."""
        return float(self.model.logit_scale.detach().exp())

    @torch.inference_mode()
    def image_features(self, images: Tensor) -> Tensor:
        """Unit features (B, D) float32 of preprocessed images (B, 3, H, W)."""
        return self.model.encode_image(images.to(self.device), normalize=True).float()

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Unit features (N, D) float32 of N texts."""
        parts = [
            self.model.encode_text(self.tokenize(list(texts[i : i + batch_size])).to(self.device), normalize=True)
            for i in range(0, len(texts), batch_size)
        ]
        return torch.cat(parts).float()


def pick_device(device: str) -> torch.device:
    """The torch device; auto is the GPU if there is one. Raises LTGCError when cuda is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise LTGCError("device: cuda is asked for, but torch sees no GPU; set it to auto or cpu in params.yaml")
    return torch.device(device)


def load(clip: params.Clip, device: str = "auto") -> Clip:
    """The CLIP that params.yaml names. Raises LTGCError when it is not to be had."""
    schema, _, place = clip.model.partition(":")
    if schema == "local-dir" and not Path(place, "open_clip_config.json").is_file():
        raise LTGCError(f"clip.model: {place} has no open_clip_config.json; name a folder that open_clip saved")
    target = pick_device(device)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            clip.model, pretrained=clip.pretrained, device=target, weights_only=True
        )
        tokenizer = open_clip.get_tokenizer(clip.model)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LTGCError(f"clip.model {clip.model!r}, pretrained {clip.pretrained!r}: {reason}") from error
    model.eval().requires_grad_(False)
    return Clip(model=model, preprocess=preprocess, tokenize=tokenizer, device=target)
