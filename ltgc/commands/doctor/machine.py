"""Checks of the machine itself: Python and its packages, the GPU, the memory."""

import os
import platform
import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ltgc.commands.doctor import models
from ltgc.commands.doctor.storage import GIB, gib
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params

# Memory for activations of a batch and the CUDA context, as a fraction of the weights: a rough guess.
ACTIVATIONS = 0.3
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def packages(settings: Params) -> str:
    """Python and the packages are in the versions that pyproject.toml allows."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = platform.python_version()
    if not SpecifierSet(project["requires-python"]).contains(python, prereleases=True):
        raise LTGCError(f"Python {python} is not {project['requires-python']}; make the environment with another")
    wrong = [need for need in map(Requirement, project["dependencies"]) if not _installed(need)]
    if wrong:
        raise LTGCError(f"not installed: {', '.join(map(str, wrong))}; run `make` or `pip install -e .`")
    return f"Python {python} and {len(project['dependencies'])} packages"


def _installed(need: Requirement) -> bool:
    try:
        return need.specifier.contains(version(need.name), prereleases=True)
    except PackageNotFoundError:
        return False


def device(settings: Params) -> str:
    """torch sees the machine's GPU, and a GPU where params.yaml asks for one."""
    asked = {"train.device": settings.train.device, "evaluate.device": settings.evaluate.device}
    if models.draws_here(settings.t2i):
        asked["t2i.diffusers.device"] = settings.t2i.diffusers.device
    built = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return f"{built}, {gpu.name} with {gpu.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
    if wanting := [key for key, value in asked.items() if value == "cuda"]:
        raise LTGCError(
            f"{wanting[0]}: cuda, but {built} sees no GPU; set it to auto, or install torch for your CUDA"
        )
    if shutil.which("nvidia-smi"):
        raise LTGCError(f"{built} does not see this machine's GPU; install torch for the driver's CUDA")
    return f"{built}, no GPU: on {os.cpu_count()} cores"


def memory(settings: Params) -> str:
    """The weights fit into the GPU, or into main memory where there is none."""
    needed: dict[str, float] = {}
    folder = Path(settings.clip.model.partition(":")[2])
    if settings.clip.model.startswith("local-dir:") and folder.is_dir():
        needed["CLIP"] = models.parameters(folder) * BYTES["float32"]
    t2i = models.local_weights(settings.t2i) if models.draws_here(settings.t2i) else None
    if t2i:
        sizes = [models.parameters(model) for model in t2i.iterdir() if model.is_dir()]
        # Offloading keeps one of the pipeline's models on the GPU at a time; sequentially, one layer.
        held = {"none": sum(sizes), "model": max(sizes, default=0), "sequential": 0}
        needed["T2I"] = held[settings.t2i.diffusers.offload] * BYTES[settings.t2i.diffusers.dtype]
    if not needed:
        return "not known: the weights are not on this machine yet"
    where, available = "main memory", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if torch.cuda.is_available():
        where, available = "GPU memory", float(torch.cuda.get_device_properties(0).total_memory)
    total = sum(needed.values()) * (1 + ACTIVATIONS)
    models_named = ", ".join(f"{name} {gib(size)}" for name, size in needed.items())
    summary = f"{gib(total)} of {gib(available)} {where} ({models_named})"
    if total > available:
        raise LTGCError(
            f"needs about {summary}; set t2i.diffusers.offload: model, dtype: bfloat16, or a smaller model"
        )
    return f"about {summary}"
