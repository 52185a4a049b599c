"""docs/results.md, docs/systems.md: their tables are what the artifacts say, and what has not run says so."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.paths import ROOT

from tools.results_page import PAGES, TABLE, TABLES, page


def table(name: str, root: Path) -> str:
    return page(f"<!-- table {name}: make results -->\nold\n<!-- end -->\n", root)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A repository in which only the default has run."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_tables_of_a_page_are_what_the_artifacts_say(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("<!-- table ") == len(TABLE.findall(text))
    assert page(text, ROOT) == text, "run `python -m tools.results_page`"


def test_every_table_has_its_place_on_one_page():
    places = [match[2] for path in PAGES for match in TABLE.finditer((ROOT / path).read_text(encoding="utf-8"))]
    assert sorted(places) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_part_that_has_not_run_says_so_with_its_command(name, tmp_path):
    assert table(name, tmp_path).splitlines()[1:-1] == ["*Not run yet: `make results`*"]


def test_a_changed_artifact_changes_the_table(results):
    compare = results / "metrics/compare.json"
    figures = json.loads(compare.read_text())
    figures["ltgc_plus"]["all"] = {"mean": 12.34, "std": 0.5}
    before = table("methods", results)
    compare.write_text(json.dumps(figures))
    changed = table("methods", results)
    row = next(line for line in changed.splitlines() if line.startswith("| `ltgc_plus` |"))
    assert row.startswith("| `ltgc_plus` | 12.3±0.5 |") and row not in before


def test_the_best_of_a_column_and_a_difference_beyond_noise_are_bold(results):
    first, second = re.split("Each less the control.*", table("methods", results))
    compared, paired = (json.loads((results / f"metrics/{n}.json").read_text()) for n in ("compare", "paired"))
    for method, metrics in paired.items():
        (row,) = [line for line in second.splitlines() if line.startswith(f"| `{method}` |")]
        bold = [cell.strip().startswith("**") for cell in row.split("|")[2:-1]]
        assert bold == [abs(m["mean"]) > m["margin"] for m in metrics.values()]
    few = {m: values["few"]["mean"] for m, values in compared.items() if m != "lmm"}  # which saw other images
    assert f"**{max(few.values()):.1f}±" in first


def test_comparisons_and_photo_worlds_have_the_tables_of_the_default(results):
    own = {name: json.loads((results / f"metrics/{name}.json").read_text()) for name in ("compare", "paired")}
    (results / "results").mkdir()
    (results / "results/five_seeds.json").write_text(json.dumps(own))
    (results / "results/photo_world.json").write_text(
        json.dumps({"style_shift": own | {"loops": {}, "settings": {}}})
    )
    world = own | {"loops": {}, "settings": {}}
    costs = {"trained_parameters": 12345, "seconds": 61.6, "drawings": 855, "calls": 1048, "hosted_usd": 7.126}
    world["costs"] = {"lpt": costs, "ltgc_lpt": costs | {"seconds": None, "hosted_usd": None}}
    rows = "| `lpt` | 12,345 | 62 | 855 | 1,048 | 7.13 |\n| `ltgc_lpt` | 12,345 | – | 855 | 1,048 | – |\n"
    (results / "results/systems_gap.json").write_text(json.dumps(world))
    (results / "results/photo_systems.json").write_text(json.dumps({"style_shift": world}))
    five = table("five_seeds", results).splitlines()[1:-1]
    assert five == table("methods", results).splitlines()[1 : 1 + len(five)] and len(five) > 20
    assert table("photo_world", results).splitlines()[1:-1] == ["**style shift**", "", *five]
    assert rows in table("systems_gap", results) and rows in table("photo_systems", results)
