"""CLIP as everything uses it: unit features of images and of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ltgc.clip.texts import shortened
from ltgc.pipeline.terminal import console


def resized(image: Image.Image, preprocess: Any) -> Tensor:
    """RGB image -> (3, H, W) uint8 at CLIP's size: `preprocess` without its last two steps, which normalise."""
    for step in preprocess.transforms[:-2]:
        image = step(image)
    return pil_to_tensor(image)


@dataclass(frozen=True)
class Clip:
    """A frozen CLIP with its preprocessing."""

    model: Any  # open_clip.CLIP, in eval mode
    preprocess: Any  # torchvision's Compose: RGB image -> (3, H, W) float32, normalised
    tokenize: Callable[..., Tensor]  # N texts -> (N, context length) int64
    device: torch.device

    @property
    def logit_scale(self) -> float:
        """CLIP's inverse temperature (about 100 for OpenAI's models)."""
        return float(self.model.logit_scale.detach().exp())

    def pixels(self, image: Image.Image) -> Tensor:
        """RGB image -> (3, H, W) uint8 at CLIP's size."""
        return resized(image, self.preprocess)

    def normalise(self, pixels: Tensor) -> Tensor:
        """The last two steps of `preprocess`, for a batch on the device: (B, 3, H, W) uint8 -> float32."""
        return self.preprocess.transforms[-1](pixels.to(self.device).float().div(255))

    @torch.inference_mode()
    def image_features(self, images: Tensor) -> Tensor:
        """Unit features (B, D) float32 of preprocessed images (B, 3, H, W)."""
        return self.model.encode_image(images.to(self.device), normalize=True).float()

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Unit features (N, D) float32 of N texts; those that are too long are cut, which the terminal says."""
        read = self.fitting(texts)
        if cut := [text for text, whole in zip(read, texts, strict=True) if text != whole]:
            console.print(
                f"CLIP reads {self.context_length} tokens: {len(cut):,} of {len(texts):,} texts were cut, "
                f"the first to {cut[0]!r}",
                markup=False,
            )
        features: Tensor | None = None
        for i in range(0, len(read), batch_size):
            part = self.model.encode_text(self.tokenize(read[i : i + batch_size]).to(self.device), normalize=True)
            if features is None:  # made once: a list of parts, put together in the end, takes twice the memory
                features = part.new_empty((len(read), part.shape[1]), dtype=torch.float32)
            features[i : i + batch_size] = part
        assert features is not None
        return features

    @property
    def context_length(self) -> int:
        """The most tokens that CLIP reads of a text, its marks of beginning and end among them."""
        return self.tokenize(["a"]).shape[1]

    def fitting(self, texts: Sequence[str]) -> list[str]:
        """The texts, those that are longer than the context cut at the last feature that fits, else at a word.

        open_clip itself would cut them in silence, in the middle of a word.
        """
        # A token stands for at least one byte: most texts need no second look.
        room = self.context_length - 2
        long = [text for text in texts if len(text.encode()) > room and not self._fits(text)]
        shorter = {text: shortened(text, self._fits) for text in long}
        return [shorter.get(text, text) for text in texts]

    def _fits(self, text: str) -> bool:
        """Whether nothing but padding is lost when the tokens are cut to the context."""
        cut = self.tokenize([text])[0]
        whole = self.tokenize([text], context_length=len(cut) + 2 * len(text.encode()))[0]
        values = int(whole.max()) + 1
        lost = whole.bincount(minlength=values) - cut.bincount(minlength=values)
        return int(lost.count_nonzero()) == 1
