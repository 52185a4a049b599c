"""Checks of the models that run on this machine: CLIP, and the text-to-image pipeline of the backend diffusers."""

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants

from ltgc.clients import diffusers_painter, ray_pipelines
from ltgc.clip.weights import locate_clip
from ltgc.commands.doctor.servers import Warning
from ltgc.pipeline import pins
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import T2ISettings
from ltgc.pipeline.terminal import console

SECONDS = 10  # that the hub may take to answer


def clip_model(settings: Params) -> str:
    """CLIP is on this machine and is the pinned one, or can be downloaded."""
    section = settings.clip
    try:
        with _offline():
            source = locate_clip(section)
    except LTGCError as error:
        if not _not_downloaded(error):
            raise
        return f"{section.model} {section.pretrained or ''} is not on this machine; {_hub()}"
    if section.revision is None:
        return f"{section.model} is there, but not pinned: clip.revision: {source.revision}"
    pins.check("clip.revision", section.model, source.revision, section.revision)
    if section.model.startswith("local-dir:embedded/") and settings.data.source != "wildflowers":
        return Warning(
            "the embedded CLIP has read about drawn wildflowers only and cannot tell other photos apart; "
            "set clip.model to one that can (docs/models.md)"
        )
    return f"{section.model} is the one that is pinned"


def t2i_model(settings: Params) -> str:
    """The pipeline of the backend diffusers is on this machine, or can be downloaded."""
    section = settings.t2i
    if section.backend == "openai":
        return "not needed: a server draws"
    if section.diffusers.cluster:
        ray_pipelines.ray_library()
    with console.capture():  # it prints the pin, too
        revision, _ = diffusers_painter.identity(section)
    weights = local_weights(section)
    if weights is None:
        return f"{section.model} is not on this machine; {_hub()}"
    if not (weights / "model_index.json").is_file() or not parameters(weights):
        raise LTGCError(
            f"t2i.model: {weights} is no diffusers pipeline in safetensors (model_index.json and weights)"
        )
    if section.diffusers.revision is None:
        return f"{section.model} is there, but not pinned: t2i.diffusers.revision: {revision}"
    return f"{section.model} is there"


def draws_here(section: T2ISettings) -> bool:
    """Whether this machine's own device draws."""
    return section.backend == "diffusers" and not section.diffusers.cluster


def local_weights(section: T2ISettings) -> Path | None:
    """The folder of the pipeline, or None if it is not downloaded yet."""
    if Path(section.model).is_dir():
        return Path(section.model)
    try:
        found = huggingface_hub.snapshot_download(
            section.model, revision=section.diffusers.revision, local_files_only=True
        )
    except (OSError, ValueError):
        return None
    return Path(found)


def parameters(folder: Path) -> int:
    """How many numbers the safetensors files below `folder` hold, from their headers; variants count once."""
    return sum(_numbers(file) for file in folder.rglob("*.safetensors") if not _is_variant(file))


def _is_variant(file: Path) -> bool:
    """Whether it is an x.fp16.safetensors beside an x.safetensors."""
    name, *variant, _ = file.name.rsplit(".", 2)
    return bool(variant) and file.with_name(f"{name}.safetensors").exists()


def _numbers(file: Path) -> int:
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


@contextmanager
def _offline() -> Iterator[None]:
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _not_downloaded(error: BaseException | None) -> bool:
    """Whether the error is that the hub has it and this machine does not."""
    missing = (huggingface_hub.errors.LocalEntryNotFoundError, huggingface_hub.errors.OfflineModeIsEnabled)
    while error is not None:
        if isinstance(error, missing):
            return True
        error = error.__cause__ or error.__context__
    return False


def _hub() -> str:
    """What to tell if the hub answers. Raises LTGCError if it does not."""
    try:
        httpx2.head(constants.ENDPOINT, timeout=SECONDS)
    except httpx2.HTTPError as error:
        raise LTGCError(
            f"not on this machine, and {constants.ENDPOINT} does not answer; name a folder that holds the weights"
        ) from error
    return "it will be downloaded"
