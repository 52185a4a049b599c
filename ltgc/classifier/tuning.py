"""What of the visual encoder is trained, name -> how it is made trainable, saved and loaded (train.tuning).

A tuning leaves its name on the encoder, as open_clip leaves `preprocess_cfg` there: whoever saves it knows how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ltgc.classifier.adaptformer import adapters, add_adapters, load_adapters
from ltgc.classifier.prompts import Prompted, load_prompts
from ltgc.classifier.vit import Visual
from ltgc.pipeline.settings.training import TrainSettings


@dataclass(frozen=True)
class Tuning:
    file: str  # below the model's folder
    apply: Callable[
        [Visual, TrainSettings], Visual
    ]  # in place; afterwards what is trained requires grad, nothing else
    save: Callable[[Visual, Path], None]
    load: Callable[[Visual, Path], Visual]  # onto an untouched encoder, in place


def apply(visual: Visual, settings: TrainSettings) -> Visual:
    """Make of the frozen encoder what train.tuning says, in place; initial values from torch's global generator.

    Its outputs stay the same, but for prompts, which it reads from the start. Raises LTGCError for an encoder that
    the tuning does not know.
    """
    visual = TUNINGS[settings.tuning].apply(visual, settings)
    visual.tuning = settings.tuning
    return visual


def save(visual: Visual, folder: Path) -> None:
    """Write into `folder` what was trained; nothing for an encoder without tuning or with the head's alone."""
    name = getattr(visual, "tuning", None)
    if name is None and any(p.requires_grad for p in visual.parameters()):
        raise RuntimeError(
            "the encoder was made trainable without ltgc.classifier.tuning.apply: nothing says how to save it"
        )
    if name is not None:
        TUNINGS[name].save(visual, folder / TUNINGS[name].file)


def load(visual: Visual, folder: Path) -> Visual:
    """Put on the untouched `visual`, in place, what `save` wrote into `folder`."""
    for name, tuning in TUNINGS.items():
        if tuning.file and (folder / tuning.file).exists():
            visual = tuning.load(visual, folder / tuning.file)
            visual.tuning = name
    return visual


# peft takes 0.6 s to import, which other tunings do not need.


def _add_lora(visual: Visual, settings: TrainSettings) -> Visual:
    from ltgc.classifier import lora

    return lora.add_adapter(visual, settings.lora)


def _save_lora(visual: Visual, folder: Path) -> None:
    from ltgc.classifier import lora

    lora.save_adapter(visual, folder)


def _load_lora(visual: Visual, folder: Path) -> Visual:
    from ltgc.classifier import lora

    return lora.load_adapter(visual, folder)


def _load_all(visual: Visual, file: Path) -> Visual:
    visual.load_state_dict(load_file(file))
    return visual


def _save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, file)


TUNINGS: dict[str, Tuning] = {
    "lora": Tuning("adapter", _add_lora, _save_lora, _load_lora),
    "adaptformer": Tuning(
        "adaptformer.safetensors",
        lambda visual, settings: add_adapters(visual, settings.adaptformer.bottleneck),
        lambda visual, file: _save_tensors(adapters(visual).state_dict(), file),
        load_adapters,
    ),
    "prompts": Tuning(
        "prompts.safetensors",
        lambda visual, settings: Prompted(visual, settings.prompts.length),
        lambda visual, file: _save_tensors(visual.tensors(), file),
        load_prompts,
    ),
    "linear_probe": Tuning("", lambda visual, _: visual, lambda visual, _: None, lambda visual, _: visual),
    "full": Tuning(
        "visual.safetensors",
        lambda visual, _: visual.requires_grad_(True),
        lambda visual, file: _save_tensors(visual.state_dict(), file),
        _load_all,
    ),
}
