"""Where CLIP's weights come from, and what pins them.

docs/models.md says what `clip.model`, `clip.pretrained` and `clip.revision` may be.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import snapshot_download
from open_clip.pretrained import download_pretrained_from_hf
from safetensors import SafetensorError

from ltgc.clip.device import pick_device
from ltgc.clip.encoder import Clip
from ltgc.pipeline import pins
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.clip import ClipSettings


@dataclass(frozen=True)
class Source:
    """Where a CLIP lies on this machine, once it is downloaded."""

    name: str  # what open_clip calls the architecture
    weights: Path | None  # None: in the folder that `name` says
    revision: str  # the hub's commit, or sha256: of what is local
    options: dict[str, Any] = field(default_factory=dict)  # of open_clip.create_model_from_pretrained


def load_clip(clip: ClipSettings, device: str = "auto") -> Clip:
    """The CLIP that params.yaml names. Raises LTGCError when it is not to be had, or is another than is pinned."""
    target = pick_device(device)
    source = locate_clip(clip)
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


def locate_clip(clip: ClipSettings) -> Source:
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


def _folder(place: str, clip: ClipSettings) -> Source:
    folder = Path(place)
    if not (folder / "open_clip_config.json").is_file():
        raise LTGCError(f"clip.model: {folder} has no open_clip_config.json; name a folder that open_clip saved")
    # All that is loaded: weights, architecture, preprocessing, tokenizer.
    return Source(clip.model, None, pins.fingerprint(folder))


def _hub_repository(place: str, clip: ClipSettings) -> Source:
    commit = _on_hub(place, None, clip).parent.name
    # The tokenizer too: open_clip would look it up by name, unpinned, each time.
    folder = snapshot_download(place, revision=commit, allow_patterns=["*.json", "*.txt", "*.model"])
    return Source(f"local-dir:{folder}", None, commit)


def _named(clip: ClipSettings) -> Source:
    """An architecture of open_clip's own, with weights by open_clip's tag or from a file."""
    name = clip.model.replace("/", "-")
    config = open_clip.get_model_config(name)
    if config is None:
        near = ", ".join(difflib.get_close_matches(name, open_clip.list_models(), 3)) or "see docs/models.md"
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


def _on_hub(repository: str, filename: str | None, clip: ClipSettings) -> Path:
    """The weights in the hub's cache, <repository>/snapshots/<commit>/<file>; safetensors where there are any."""
    if clip.revision and ":" in clip.revision:
        raise LTGCError(f"clip.revision: {clip.model} comes from a hub: pin it by its commit, not by a checksum")
    return Path(download_pretrained_from_hf(repository, filename, revision=clip.revision))


def _not_to_be_had(clip: ClipSettings, error: Exception) -> LTGCError:
    reason = " ".join(str(error).split())[:300]
    return LTGCError(f"clip.model {clip.model!r}, pretrained {clip.pretrained!r}: {reason}")
