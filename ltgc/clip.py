"""CLIP by open_clip: where its weights come from, what pins them, and unit features of images and of texts.

docs/clip.md says what `clip.model`, `clip.pretrained` and `clip.revision` may be.
"""

import difflib
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import snapshot_download
from open_clip.pretrained import download_pretrained_from_hf
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ltgc import params, pins
from ltgc.errors import LTGCError
from ltgc.stage import console

# Where a text that is too long may end, the best places first: between features, words, characters.
CUTS = [re.compile(r"\s*[,;]\s+|\s+(?=with\s)"), re.compile(r"\s+"), re.compile(r"(?<=\S)")]


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
        """RGB image -> (3, H, W) uint8 at CLIP's size: `preprocess` without its last two steps."""
        for step in self.preprocess.transforms[:-2]:
            image = step(image)
        return pil_to_tensor(image)

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
        parts = [
            self.model.encode_text(self.tokenize(read[i : i + batch_size]).to(self.device), normalize=True)
            for i in range(0, len(read), batch_size)
        ]
        return torch.cat(parts).float()

    @property
    def context_length(self) -> int:
        """The most tokens that CLIP reads of a text, its marks of beginning and end among them."""
        return self.tokenize(["a"]).shape[1]

    def fitting(self, texts: Sequence[str]) -> list[str]:
        """The texts, those that are longer than the context cut at the last feature that fits, else at a word.

        open_clip itself would cut them in silence, in the middle of a word.
        """
        # A token stands for at least one byte: most texts need no second look.
        long = [text for text in texts if len(text.encode()) > self.context_length - 2 and not self._fits(text)]
        shorter = {text: shortened(text, self._fits) for text in long}
        return [shorter.get(text, text) for text in texts]

    def _fits(self, text: str) -> bool:
        """Whether nothing but padding is lost when the tokens are cut to the context."""
        cut = self.tokenize([text])[0]
        whole = self.tokenize([text], context_length=len(cut) + 2 * len(text.encode()))[0]
        values = int(whole.max()) + 1
        lost = whole.bincount(minlength=values) - cut.bincount(minlength=values)
        return int(lost.count_nonzero()) == 1


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `text` that fits and ends before a feature, else before a word or a character."""
    end = "." if text.endswith(".") else ""
    for pattern in CUTS:
        shorter = [text[: match.start()] + end for match in pattern.finditer(text) if match.start()]
        fitting = bisect_left(shorter, True, key=lambda short: not fits(short))
        if fitting:
            return shorter[fitting - 1]
    return ""


@dataclass(frozen=True)
class Source:
    """Where a CLIP lies on this machine, once it is downloaded."""

    name: str  # what open_clip calls the architecture
    weights: Path | None  # None: in the folder that `name` says
    revision: str  # the hub's commit, or sha256: of what is local
    options: dict[str, Any] = field(default_factory=dict)  # of open_clip.create_model_from_pretrained


def pick_device(device: str) -> torch.device:
    """The torch device; auto is the GPU if there is one. Raises LTGCError when cuda is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise LTGCError("device: cuda is asked for, but torch sees no GPU; set it to auto or cpu in params.yaml")
    return torch.device(device)


def load(clip: params.Clip, device: str = "auto") -> Clip:
    """The CLIP that params.yaml names. Raises LTGCError when it is not to be had, or is another than is pinned."""
    target = pick_device(device)
    source = locate(clip)
    if clip.revision is None:
        pins.unpinned("clip.revision", clip.model, source.revision)
    else:
        pins.check("clip.revision", clip.model, source.revision, clip.revision)
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            source.name,
            str(source.weights) if source.weights else None,
            device=target,
            weights_only=True,
            **source.options,
        )
        tokenizer = open_clip.get_tokenizer(source.name)
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise _not_to_be_had(clip, error) from error
    model.eval().requires_grad_(False)
    return Clip(model=model, preprocess=preprocess, tokenize=tokenizer, device=target)


def locate(clip: params.Clip) -> Source:
    """Find the CLIP that params.yaml names, downloading it if need be. Raises LTGCError.

    Its `revision` is what `clip.revision` may pin.
    """
    schema, colon, place = clip.model.partition(":")
    find = {"local-dir": _folder, "hf-hub": _hub_repository}.get(schema) if colon else None
    if find and clip.pretrained:
        raise LTGCError(f"clip.pretrained: {clip.model} has weights of its own; set it to null")
    try:
        return find(place, clip) if find else _named(clip)
    except (RuntimeError, OSError, ValueError) as error:
        raise _not_to_be_had(clip, error) from error


def _folder(place: str, clip: params.Clip) -> Source:
    folder = Path(place)
    if not (folder / "open_clip_config.json").is_file():
        raise LTGCError(f"clip.model: {folder} has no open_clip_config.json; name a folder that open_clip saved")
    # All that is loaded: weights, architecture, preprocessing, tokenizer.
    return Source(clip.model, None, pins.fingerprint(folder))


def _hub_repository(place: str, clip: params.Clip) -> Source:
    commit = _on_hub(place, None, clip).parent.name
    # The tokenizer too: open_clip would look it up by name, unpinned, each time.
    folder = snapshot_download(place, revision=commit, allow_patterns=["*.json", "*.txt", "*.model"])
    return Source(f"local-dir:{folder}", None, commit)


def _named(clip: params.Clip) -> Source:
    """An architecture of open_clip's own, with weights by open_clip's tag or from a file."""
    name = clip.model.replace("/", "-")
    config = open_clip.get_model_config(name)
    if config is None:
        near = ", ".join(difflib.get_close_matches(name, open_clip.list_models(), 3)) or "see docs/clip.md"
        raise LTGCError(f"clip.model: open_clip has no {clip.model!r}; near it: {near}")
    if clip.pretrained and clip.pretrained.endswith(".safetensors"):
        return Source(name, Path(clip.pretrained), pins.fingerprint(Path(clip.pretrained)))
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(name, clip.pretrained) if clip.pretrained else {}
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise LTGCError(
            f"clip.pretrained: {clip.pretrained} is neither a .safetensors file nor one of open_clip's tags "
            f"for {name} ({tags})"
        )
    quick_gelu = tag.get("quick_gelu", False)
    if config.get("quick_gelu", False) and not quick_gelu:
        raise LTGCError(
            f"clip.model: {name} has quick-GELU, and {clip.pretrained!r} was trained without; "
            f"name {name.removesuffix('-quickgelu')}"
        )
    repository, _, filename = tag["hf_hub"].rpartition("/")
    weights = _on_hub(repository, filename or None, clip)
    options = {
        "force_quick_gelu": quick_gelu,  # ViT-B-32 with OpenAI's weights
        "image_mean": tag["mean"],
        "image_std": tag["std"],
        "image_interpolation": tag["interpolation"],
        "image_resize_mode": tag["resize_mode"],
    }
    return Source(name, weights, weights.parent.name, options)


def _on_hub(repository: str, filename: str | None, clip: params.Clip) -> Path:
    """The weights in the hub's cache, <repository>/snapshots/<commit>/<file>; safetensors where there are any."""
    if clip.revision and ":" in clip.revision:
        raise LTGCError(f"clip.revision: {clip.model} comes from a hub: pin it by its commit, not by a checksum")
    return Path(download_pretrained_from_hf(repository, filename, revision=clip.revision))


def _not_to_be_had(clip: params.Clip, error: Exception) -> LTGCError:
    reason = " ".join(str(error).split())[:300]
    return LTGCError(f"clip.model {clip.model!r}, pretrained {clip.pretrained!r}: {reason}")
