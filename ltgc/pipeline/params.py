"""params.yaml as typed, checked values: the one place that reads it.

A stage loads only the sections that it declares in dvc.yaml, so it cannot depend on a key that DVC
does not watch.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.base import Section
from ltgc.pipeline.settings.clip import ClipSettings, FilterSettings, QualitySettings
from ltgc.pipeline.settings.data import DataSettings, LicensesSettings
from ltgc.pipeline.settings.loops import AskSettings, DescribeSettings, ExtendSettings, TemplatesSettings
from ltgc.pipeline.settings.servers import (
    SERVED,
    BudgetSettings,
    ChatSettings,
    Price,
    ServersSettings,
    T2ISettings,
    completed,
)
from ltgc.pipeline.settings.training import CompareSettings, EvaluateSettings, Method, TrainSettings

PARAMS = Path("params.yaml")


class Params(Section):
    """params.yaml. Sections that were not asked for are absent: touching one raises AttributeError."""

    data: DataSettings
    servers: ServersSettings  # before the sections that it completes: an error in it is named as its own
    llm: ChatSettings
    vision: ChatSettings
    describe: DescribeSettings
    extend: ExtendSettings
    templates: TemplatesSettings
    t2i: T2ISettings
    clip: ClipSettings
    filter: FilterSettings
    quality: QualitySettings
    train: TrainSettings
    evaluate: EvaluateSettings
    ask: AskSettings
    compare: CompareSettings
    methods: list[Method] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    licenses: LicensesSettings
    budget: BudgetSettings
    prices: dict[str, Price]


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
