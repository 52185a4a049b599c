"""A checkpoint of a training run: one file from which a killed run continues to the same bytes.

accelerate's save_state pickles the optimizer and the random number generators, and loading a pickle can run code
that somebody put into it. Here tensors are safetensors, and the rest is JSON in the header of the same file, which
is either whole or not there. No state of a generator is kept: the plan is sampled before the first step, and each
step seeds dropout by its number.
"""

from __future__ import annotations

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

LIBRARIES = ["torch", "open_clip_torch", "peft", "accelerate", "pillow"]


def fingerprint(*values: Any) -> str:
    """A hash of `values` and the versions of the libraries. Values: tensors, dicts and lists of them, and anything
    that its repr determines.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps({name: version(name) for name in LIBRARIES}).encode())
    for data in _bytes(values):
        digest.update(data)
    return digest.hexdigest()


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif isinstance(value, dict):
        yield from _bytes(list(value.items()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _bytes(item)
    else:
        yield repr(value).encode()


def write(path: Path, key: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`. tensors: on any device; state: anything that JSON can hold."""
    header = {"key": key, "state": json.dumps(state)}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    files.write_bytes(path, save(on_cpu, header))


def read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write` kept of the run `key`, on the CPU. None, after saying so, where the file is of another run."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        header = {}
    if header.get("key") != key:
        console.print(f"{path}: damaged, or of other params, data, code or libraries: starting at step 1")
        return None
    return tensors, json.loads(header["state"])
