"""The branches that a classifier may have, how they are saved, and how a run's folder is found to hold one."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from ltgc.classifier.branch import Branch
from ltgc.classifier.memory import Memory
from ltgc.classifier.sentences import Sentences
from ltgc.clip.encoder import Clip

BRANCHES: list[type[Branch]] = [Sentences, Memory]


def save(branch: Branch, folder: Path) -> None:
    """Write the branch into the folder of its run."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in branch.state_dict().items()}
    save_file(tensors, folder / branch.file)


def load(folder: Path, clip: Clip) -> Branch | None:
    """What `save` wrote; None for a classifier of encoder and head alone."""
    for kind in BRANCHES:
        if (folder / kind.file).exists():
            return kind.of(load_file(folder / kind.file), clip)
    return None
