"""How fast this machine's GPU trains, scores and draws: benchmarks/gpu.py, as JSON and as a table for the docs."""

import sys
from importlib import import_module
from pathlib import Path

from ltgc.pipeline import files
from ltgc.pipeline.errors import LTGCError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def main(gpu: bool, out: Path) -> None:
    """Raises LTGCError where there is no GPU to measure, or no repository around this package."""
    import torch

    if gpu and not torch.cuda.is_available():
        raise LTGCError("--gpu: torch sees no GPU; leave it out for a small run on the CPU")
    if not (BENCHMARKS / "gpu.py").is_file():
        raise LTGCError(f"{BENCHMARKS}: benchmarks are not installed; clone the repository and `pip install -e .`")
    sys.path.insert(0, str(BENCHMARKS))  # they are scripts: no package, and nothing that a stage runs on
    measured = import_module("gpu").measure()
    files.write_json(out, measured)
