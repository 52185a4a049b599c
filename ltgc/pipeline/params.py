"""params.yaml as typed, checked values: the one place that reads it.

A stage loads only the sections that it declares in dvc.yaml, so it cannot depend on a key that DVC
does not watch.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.sections import Params
from ltgc.pipeline.settings.servers import SERVED, ServersSettings, completed

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")  # of DVC: the values that each stage ran with, and what it made


def load(*keys: str, path: Path = PARAMS) -> Params:
    """Check all of params.yaml and return the named sections and keys of it.

    keys: dotted, as under `params:` of the stage in dvc.yaml ("clip", "extend.target"). llm, vision and t2i come
    completed from `servers`, so whoever names one of them names `servers` too.
    Raises LTGCError naming the file and the key.
    """
    if "servers" not in keys and (shared := [key for key in keys if _holds_shared(key)]):
        raise ValueError(f"{', '.join(shared)}: load servers too, as their values come from there")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LTGCError(f"{path}: not there; run from the repository root") from error
    except yaml.YAMLError as error:
        raise LTGCError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        params = Params.model_validate(completed(raw))
    except ValidationError as error:
        # A mistyped key is two errors, an unknown key and a missing one: the first says where the typing is.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"])) or "the file"
        hint = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise LTGCError(f"{path}: {key}: {hint}") from error
    return _only(params, [key.split(".") for key in keys])


def _holds_shared(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in SERVED and (not name or name in ServersSettings.model_fields)


def _only(section: Any, keys: list[list[str]]) -> Any:
    """A copy of `section` with only the fields that `keys` name."""
    if any(not key for key in keys):
        return section
    fields = {
        name: _only(getattr(section, name), [key[1:] for key in keys if key[0] == name])
        for name in {key[0] for key in keys}
    }
    return type(section).model_construct(**fields)
