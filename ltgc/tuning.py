"""What of the visual encoder is trained, name -> how it is made trainable, saved and loaded (train.tuning).

A tuning leaves its name on the encoder, as open_clip leaves `preprocess_cfg` there: whoever saves it knows how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ltgc.errors import LTGCError
from ltgc.params import Train

Visual = Any  # open_clip's visual tower, or peft's around it


@dataclass(frozen=True)
class Tuning:
    file: str  # below the model's folder
    apply: Callable[[Visual, Train], Visual]  # in place; afterwards what is trained requires grad, nothing else
    save: Callable[[Visual, Path], None]
    load: Callable[[Visual, Path], Visual]  # onto an untouched encoder, in place


def apply(visual: Visual, settings: Train) -> Visual:
    """Make of the frozen encoder what train.tuning says, in place; initial values from torch's global generator.

    Nothing changes in its outputs yet. Raises LTGCError for an encoder that the tuning does not know.
    """
    visual = TUNINGS[settings.tuning].apply(visual, settings)
    visual.tuning = settings.tuning
    return visual


def save(visual: Visual, folder: Path) -> None:
    """Write into `folder` what was trained; nothing for an encoder without tuning or with the head's alone."""
    name = getattr(visual, "tuning", None)
    if name is None and any(p.requires_grad for p in visual.parameters()):
        raise RuntimeError("the encoder was made trainable without ltgc.tuning.apply: nothing says how to save it")
    if name is not None:
        TUNINGS[name].save(visual, folder / TUNINGS[name].file)


def load(visual: Visual, folder: Path) -> Visual:
    """Put on the untouched `visual`, in place, what `save` wrote into `folder`."""
    for name, tuning in TUNINGS.items():
        if tuning.file and (folder / tuning.file).exists():
            visual = tuning.load(visual, folder / tuning.file)
            visual.tuning = name
    return visual


def blocks(visual: nn.Module) -> list[Any]:
    """The transformer blocks of open_clip's VisionTransformer.

    Raises LTGCError for a visual tower that is not made of open_clip's standard blocks (ResNet, timm).
    """
    found = list(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else []
    if not found or not all(isinstance(block, ResidualAttentionBlock) for block in found):
        raise LTGCError(
            f"clip.model: no LoRA for a visual tower of type {type(visual).__name__} with other than open_clip's "
            "standard blocks, nor AdaptFormer; name a ViT of open_clip (ViT-B-32, ViT-L-14, ...), or set "
            "train.tuning to linear_probe or full"
        )
    return found


# --- AdaptFormer (Chen et al. 2022) ---------------------------------------------------------------------


class Adapter(nn.Module):
    """s ReLU(x W_down) W_up of what the block's MLP reads, x = LN(x') (Eq. 3). s is learned, as in LIFT."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.tensor([0.1]))  # the s of AdaptFormer's experiments
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self.down(x)))


class ParallelMLP(nn.Module):
    """MLP(x) + adapter(x): with the block's own x' + ... this is Eq. 4."""

    def __init__(self, mlp: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.adapter(x)


def _add_adapters(visual: Visual, bottleneck: int) -> Visual:
    for block in blocks(visual):
        weight = block.mlp.c_fc.weight  # (4 D, D)
        block.mlp = ParallelMLP(block.mlp, Adapter(weight.shape[1], bottleneck).to(weight.device))
    return visual


def _adapters(visual: Visual) -> nn.ModuleList:
    return nn.ModuleList(block.mlp.adapter for block in blocks(visual))


def _load_adapters(visual: Visual, file: Path) -> Visual:
    saved = load_file(file)
    _add_adapters(visual, bottleneck=len(saved["0.down.bias"]))
    _adapters(visual).load_state_dict(saved)
    return visual


# --- LoRA (ltgc.lora, with peft: 0.6 s to import, which other tunings do not need) ----------------------


def _add_lora(visual: Visual, settings: Train) -> Visual:
    from ltgc import lora

    return lora.add_adapter(visual, settings.lora)


def _save_lora(visual: Visual, folder: Path) -> None:
    from ltgc import lora

    lora.save_adapter(visual, folder)


def _load_lora(visual: Visual, folder: Path) -> Visual:
    from ltgc import lora

    return lora.load_adapter(visual, folder)


# --- all weights, or none -------------------------------------------------------------------------------


def _load_all(visual: Visual, file: Path) -> Visual:
    visual.load_state_dict(load_file(file))
    return visual


def _save_tensors(module: nn.Module, file: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, file)


TUNINGS: dict[str, Tuning] = {
    "lora": Tuning("adapter", _add_lora, _save_lora, _load_lora),
    "adaptformer": Tuning(
        "adaptformer.safetensors",
        lambda visual, settings: _add_adapters(visual, settings.adaptformer.bottleneck),
        lambda visual, file: _save_tensors(_adapters(visual), file),
        _load_adapters,
    ),
    "linear_probe": Tuning("", lambda visual, _: visual, lambda visual, _: None, lambda visual, _: visual),
    "full": Tuning("visual.safetensors", lambda visual, _: visual.requires_grad_(True), _save_tensors, _load_all),
}
