"""Every file that stages hand to one another: its path beside its schema, a module for each part of the pipeline.

Paths are relative to the repository root. dvc.yaml names the same ones; a test holds the two together.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules


def paths() -> dict[str, Path]:
    """name -> path of every artifact."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: value for module in modules for name, value in vars(module).items() if isinstance(value, Path)}
