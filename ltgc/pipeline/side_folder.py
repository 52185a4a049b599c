"""A folder in which stages run apart from the pipeline's own artifacts: for ablations and for `ltgc preview`.

All paths of the pipeline are relative to the working directory. Such a folder has params.yaml, review.csv and
dvc.lock of its own, and links to the data, the code and the prompts.
"""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.review import REVIEW

# What stages make, and so is not linked. What LTGC asked is in the pool, and is not asked again.
LOOPS = {"descriptions", "generated", "store"}
MADE = LOOPS | {"answers", "models", "predictions", "plots", "metrics", "report", "ablations", "preview"}


def build(folder: Path, values: dict[str, Any], made: Collection[str] = MADE) -> None:
    """Make or refresh `folder`, with `values` as its params.yaml. Raises LTGCError for a wrong value.

    made: names of folders that are not linked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in Path.cwd().iterdir():
        link = folder / entry.name
        if entry.is_dir() and entry.name not in made and not entry.name.startswith(".") and not link.exists():
            link.symlink_to(entry, target_is_directory=True)
    for file in (REVIEW, params.LOCK):  # dvc.lock says which replies were paid for
        if file.exists():
            shutil.copy(file, folder / file)
    text = yaml.safe_dump(_absolute(values), sort_keys=False, allow_unicode=True)
    files.write_text(folder / params.PARAMS, text)
    params.load(path=folder / params.PARAMS)  # a wrong value is an error before anything runs


def _absolute(value: Any) -> Any:
    """`value` with paths that begin with ../ as they are from anywhere."""
    if isinstance(value, dict):
        return {key: _absolute(each) for key, each in value.items()}
    if isinstance(value, str):
        head, prefix, path = value.rpartition("local-dir:")
        if not head and path.startswith("../"):
            return f"{prefix}{(Path.cwd() / path).resolve()}"
    return value
