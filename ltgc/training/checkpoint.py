"""A checkpoint of a training run: one file that a killed run goes on from, to the same bytes.

accelerate's save_state pickles the optimizer and the random number generators, and loading a pickle can run what
somebody put into it. Here tensors are safetensors, and the rest is JSON in the same file's header: one file is
whole or not there. No generator is kept: the plan is drawn ahead, and each step seeds dropout by its number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ltgc.pipeline import files
from ltgc.pipeline.terminal import console

FOLDER = Path(".checkpoints")  # beside the outs: DVC deletes those before it runs a stage again
LIBRARIES = ["torch", "open_clip_torch", "peft", "accelerate", "pillow"]


def fingerprint(*parts: Any) -> str:
    """A hash of everything that determines a run: `parts` and the libraries. Dataclasses count by their fields."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({name: version(name) for name in LIBRARIES}).encode())
    for piece in _pieces(parts):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif dataclasses.is_dataclass(value):
        yield from _pieces([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, dict):
        yield from _pieces(list(value.items()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pieces(item)
    else:
        yield repr(value).encode()


def write(path: Path, key: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`. tensors: on any device; state: anything that JSON holds."""
    header = {"key": key, "state": json.dumps(state)}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    files.write_bytes(path, save(kept, header))


def read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write` kept of the run `key`, on the CPU. None, and a line that says so, where it is another run's."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        header = {}
    if header.get("key") != key:
        console.print(f"{path}: of other params, data or code, or damaged: starting from step 1")
        return None
    return tensors, json.loads(header["state"])
