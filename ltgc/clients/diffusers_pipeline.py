"""A text-to-image pipeline of diffusers, set up as params.yaml says."""

import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ltgc.clip import texts
from ltgc.pipeline import pins
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import DiffusersLoraSettings, DiffusersSettings, T2ISettings

ARGUMENTS = {"steps": "num_inference_steps", "guidance": "guidance_scale", "negative_prompt": "negative_prompt"}


@dataclass(frozen=True)
class Painted:
    """One drawing as it leaves the pipeline."""

    pixels: np.ndarray | None  # (H, W, 3) uint8; None: its safety checker refused
    cut: str | None  # the part of the prompt that was read, where the text encoders do not read all of it


class Wanted(NamedTuple):
    """One drawing, before it is drawn."""

    prompt: str
    seed: int
    photo: bytes | None = None  # an image file of the size that is drawn, which it starts from
    strength: float | None = None  # how far it may go from the photo, in (0, 1]


class Pipeline:
    """A diffusers pipeline, set up as params.yaml says; with t2i.start_strengths an image-to-image pipeline."""

    def __init__(self, section: T2ISettings, device: torch.device) -> None:
        """Load it onto `device`. Raises LTGCError naming the key of what is missing or does not fit."""
        self._section = section
        self._pipe = _load(section)
        self._takes = inspect.signature(type(self._pipe).__call__).parameters
        self._arguments = self._checked_arguments()
        _set_scheduler(self._pipe, section.diffusers.scheduler)
        _add_lora(self._pipe, section.diffusers.lora)
        _place(self._pipe, section.diffusers, device)
        self._readers = list(_readers(self._pipe, self._takes))

    def __call__(self, items: Sequence[Wanted]) -> list[Painted]:
        """One image for each, at most `batch_size` of them and all of one strength.

        Raises LTGCError where memory is short or the pipeline does not draw this.
        """
        # Always as many at once: a matrix product of another shape rounds differently (docs/models.md).
        filled = [*items, *[items[-1]] * (self._section.diffusers.batch_size - len(items))]
        read = [self._cut(item.prompt) for item in filled]
        # A generator for each image, on the CPU: its random numbers are the same in any batch and on any device.
        generators = [torch.Generator("cpu").manual_seed(item.seed) for item in filled]
        options = self._options(len(read)) | _start(filled)
        try:
            drawn = self._pipe(prompt=read, generator=generators, output_type="np", **options)
        except torch.OutOfMemoryError as error:
            raise self._no_memory(len(read)) from error
        except (ValueError, TypeError, RuntimeError) as error:
            if "can't allocate memory" in str(error):
                raise self._no_memory(len(read)) from error
            raise LTGCError(f"t2i: {self._name} does not draw this: {_line(error)}") from error
        refused = getattr(drawn, "nsfw_content_detected", None) or [False] * len(read)
        return [
            Painted(None if no else self._pixels(image), text if text != prompt else None)
            for (prompt, *_), text, image, no in zip(items, read, drawn.images, refused, strict=False)
        ]

    @property
    def _name(self) -> str:
        return type(self._pipe).__name__

    def _options(self, batch: int) -> dict[str, Any]:
        negative_prompt = self._section.diffusers.negative_prompt
        return self._arguments | ({"negative_prompt": [negative_prompt] * batch} if negative_prompt else {})

    def _checked_arguments(self) -> dict[str, Any]:
        """The arguments of the pipeline beside prompts and seeds. Raises LTGCError for one it does not take."""
        d, size = self._section.diffusers, self._section.size
        if missing := {"prompt", "generator", "output_type"} - set(self._takes):
            raise LTGCError(f"t2i.model: {self._name} takes no {', '.join(sorted(missing))}; name one that does")
        # FLUX and its kin read it only at a second guidance scale, and that is off there.
        if d.negative_prompt and "true_cfg_scale" in self._takes and self._takes["true_cfg_scale"].default <= 1:
            raise LTGCError(f"t2i.diffusers.negative_prompt: {self._name} reads none; set it to null")
        options = {}
        for key, argument in ARGUMENTS.items():
            if (value := getattr(d, key)) is None:
                continue
            if argument not in self._takes:
                raise LTGCError(f"t2i.diffusers.{key}: {self._name} takes none; set it to null")
            options[argument] = value
        sized = {"width", "height"} <= set(self._takes)
        if self._section.start_strengths:
            if "strength" not in self._takes:
                raise LTGCError(f"t2i.start_strengths: {self._name} edits without a strength; set []")
            if size == "auto":
                raise LTGCError("t2i.size: photos that drawings start from need a size; set one, such as 512x512")
        elif size != "auto" and not sized:
            raise LTGCError(f"t2i.size: {self._name} draws in one size only; set it to auto")
        if size != "auto" and sized:  # most image-to-image pipelines draw in the size of the photo
            options["width"], options["height"] = map(int, size.split("x"))
        return options

    def _cut(self, prompt: str) -> str:
        """The part of the prompt that at least one of the text encoders reads to its end."""

        def fits(text: str) -> bool:
            return any(reads(text) for reads in self._readers)

        return prompt if fits(prompt) else texts.shortened(prompt, fits)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 of values in [0, 1]."""
        if not np.isfinite(image).all():
            raise LTGCError(
                f"t2i.diffusers.dtype: {self._name} overflows in {self._section.diffusers.dtype} (its images are "
                "no numbers); set bfloat16 or float32"
            )
        return (image * 255).round().astype(np.uint8)

    def _no_memory(self, batch: int) -> LTGCError:
        d, size = self._section.diffusers, self._section.size
        remedies = {
            "a smaller t2i.size": True,
            "t2i.diffusers.batch_size: 1": batch > 1,
            "vae_slicing: true": batch > 1 and not d.vae_slicing,
            "vae_tiling: true": not d.vae_tiling,
            "offload: model": d.offload == "none",
            "dtype: bfloat16": d.dtype == "float32",
        }
        rest = " or ".join(remedy for remedy, helps in reversed(remedies.items()) if helps)
        return LTGCError(f"t2i: out of memory drawing {batch} x {size} with {self._section.model}; set {rest}")


def lora_file(lora: DiffusersLoraSettings) -> Path:
    """The one safetensors file that `lora.path` is or holds. Raises LTGCError where there is none or a choice."""
    files = [lora.path] if lora.path.is_file() else sorted(lora.path.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        found = ", ".join(file.name for file in files) or "nothing"
        raise LTGCError(f"t2i.diffusers.lora.path: {lora.path}: name one .safetensors file; found {found}")
    return files[0]


def _load(section: T2ISettings) -> Any:
    import diffusers  # 4 s, so only where it draws
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    model, d = section.model, section.diffusers
    local = Path(model).is_dir()
    if local and d.revision:
        pins.check("t2i.diffusers.revision", model, pins.fingerprint(Path(model)), d.revision)
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            model,
            revision=None if local else d.revision,
            variant=d.variant,
            dtype=getattr(torch, d.dtype),
            use_safetensors=True,
        )
    except Exception as error:  # a folder that is no pipeline can lead to any
        raise LTGCError(f"t2i.model {model!r}: {_line(error)}") from error
    if section.start_strengths:
        try:
            pipe = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
        except ValueError as error:
            raise LTGCError(
                f"t2i.start_strengths: {type(pipe).__name__} cannot start from a photo: {_line(error)}"
            ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _start(items: Sequence[Wanted]) -> dict[str, Any]:
    """What an image-to-image pipeline is given beside; nothing where drawings start from nothing."""
    photos = [Image.open(io.BytesIO(item.photo)) for item in items if item.photo is not None]
    return {"image": photos, "strength": items[0].strength} if photos else {}


def _set_scheduler(pipe: Any, name: str | None) -> None:
    if name is None:
        return
    fitting = {kind.__name__: kind for kind in pipe.scheduler.compatibles}
    if name not in fitting:
        raise LTGCError(
            f"t2i.diffusers.scheduler: {name} does not fit {type(pipe).__name__}; set one of "
            f"{', '.join(sorted(fitting))}"
        )
    pipe.scheduler = fitting[name].from_config(pipe.scheduler.config)


def _add_lora(pipe: Any, lora: DiffusersLoraSettings | None) -> None:
    """Merge the LoRA into the weights, so that it costs no time when drawing."""
    if lora is None:
        return
    key = "t2i.diffusers.lora"
    file = lora_file(lora)
    if lora.revision:
        pins.check(f"{key}.revision", str(file), pins.fingerprint(file), lora.revision)
    if not hasattr(pipe, "load_lora_weights"):
        raise LTGCError(f"{key}: {type(pipe).__name__} takes no LoRA; set it to null")
    try:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True)
    except Exception as error:  # a file that is no LoRA of this pipeline can lead to any
        raise LTGCError(f"{key}.path: {file}: {_line(error)}") from error
    if not pipe.get_list_adapters():  # diffusers only warns of weights for other layers
        raise LTGCError(f"{key}.path: {file} has no weights for {type(pipe).__name__}")
    pipe.fuse_lora(lora_scale=lora.scale)
    pipe.unload_lora_weights()


def _place(pipe: Any, d: DiffusersSettings, device: torch.device) -> None:
    """Put it on the device, with what `d` says to save memory."""
    for key, method in (("vae_slicing", "enable_slicing"), ("vae_tiling", "enable_tiling")):
        if getattr(d, key):
            if not hasattr(getattr(pipe, "vae", None), method):
                raise LTGCError(f"t2i.diffusers.{key}: {type(pipe).__name__} does not have it; set it to false")
            getattr(pipe.vae, method)()
    if d.offload == "none":
        pipe.to(device)
    elif device.type == "cpu":
        raise LTGCError("t2i.diffusers.offload: there is no GPU to spare; set it to none")
    elif d.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)


def _readers(pipe: Any, takes: Mapping[str, inspect.Parameter]) -> Iterator[Callable[[str], bool]]:
    """For each text encoder, whether it reads a text to its end.

    CLIP reads 77 tokens. The others (T5, ...) read as many as the pipeline's max_sequence_length says.
    """
    longest = takes["max_sequence_length"].default if "max_sequence_length" in takes else None
    for name, tokenizer in pipe.components.items():
        if not name.startswith("tokenizer") or tokenizer is None:
            continue
        limit = tokenizer.model_max_length
        if longest is not None and "CLIP" not in type(tokenizer).__name__:
            limit = min(limit, longest)
        yield lambda text, tokenizer=tokenizer, limit=limit: len(tokenizer(text, verbose=False).input_ids) <= limit  # type: ignore[misc]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
