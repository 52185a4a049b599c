"""`dvc exp run -S key=value` by DVC's own code: every documented key can be set, and nothing else changes."""

import difflib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from helpers.paths import ROOT

from ltgc.pipeline import params

GROWN = [7]  # what was an empty list


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def set_param(file: Path, *overrides: str) -> list[str]:
    """Set as -S does; returns the lines that were removed (-) and added (+)."""
    before = file.read_text(encoding="utf-8").splitlines()
    apply_overrides(str(file), list(overrides))
    after = file.read_text(encoding="utf-8").splitlines()
    return [line for line in difflib.ndiff(before, after) if line[0] in "+-"]


def leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def another(value: Any) -> Any:
    """A value of the same type that no key of params.yaml has."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 7
        case list():
            return value[:-1] if value else GROWN
        case dict():
            return {"X-Team": "ltgc"}
    return "another"


def override(key: str, value: Any) -> str:
    text = str(value).replace("'", "").replace("True", "true").replace("False", "false")
    return f"{'++' if isinstance(value, dict) else ''}{key}={text}"  # a mapping is added to


def test_setting_a_key_changes_its_line_and_no_other(file):
    assert [line[0] for line in set_param(file, "train.lr=0.5")] == ["-", "+"]
    assert [line[0] for line in set_param(file, "data.images=/photos")] == ["-", "+"]
    assert [line[0] for line in set_param(file, "seeds=[0,1,2,3]")] == ["+"]


def test_every_key_can_be_set_and_each_changes_its_own_line(file):
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    del values["prices"]  # several keys on a line: tested below
    wanted = {key: another(value) for key, value in leaves(values)}
    changes = set_param(file, *(override(key, value) for key, value in wanted.items()))
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert dict(leaves(written | {"prices": {}})) == dict(leaves(unfolded(wanted) | {"prices": {}}))
    # Lists lose their last line; an entry of a mapping or of an empty list is a line of its own below its key.
    lists = sum(isinstance(value, list) and value != GROWN for value in wanted.values())
    assert sum(line.startswith("-") for line in changes) == len(wanted)
    entries = sum(isinstance(value, dict) or value == GROWN for value in wanted.values())
    assert sum(line.startswith("+") for line in changes) == len(wanted) - lists + entries


def unfolded(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}"""
    whole: dict[str, Any] = {}
    for key, value in dotted.items():
        *above, last = key.split(".")
        place = whole
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return whole


def test_a_value_that_is_set_to_what_it_is_changes_nothing(file):
    assert set_param(file, "train.lr=0.0003", "data.images=null", "seeds=[0,1,2]") == []


def test_a_section_of_its_own_may_differ_from_what_all_servers_share(file):
    values = {"timeout": "300", "concurrency": "2", "retries": "1", "base_url": "http://127.0.0.1:8000/v1"}
    set_param(file, *(f"+vision.{key}={value}" for key, value in values.items()))
    loaded = params.load("servers", "llm", "vision", path=file)
    assert {key: str(getattr(loaded.vision, key)) for key in values} == values | {"timeout": "300.0"}
    assert loaded.llm.timeout == loaded.servers.timeout == 120


@pytest.mark.parametrize(
    ("override", "model", "price"),
    [
        ("prices.gpt-6-luna.input=3", "gpt-6-luna", 3),
        ("++prices={gpt-4.1: {input: 2, output: 8}}", "gpt-4.1", 2),
        (r"++prices={llama3.2\:3b: {input: 0.5, output: 0}}", "llama3.2:3b", 0.5),
        (r"++prices={diffusers\:org/name: {input: 1, output: 1, image: 0.01}}", "diffusers:org/name", 1),
    ],
)
def test_a_price_can_be_set_whatever_the_name_of_its_model(file, override, model, price):
    set_param(file, override)
    prices = params.load("prices", path=file).prices
    assert prices[model].input == price
    assert prices["field-guide"].image_tokens == 85  # the others are still there
