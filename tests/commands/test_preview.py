"""`ltgc preview`: a few classes, paid for once, on a page of their own, and nothing of the pipeline touched."""

import json
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from helpers import scripted_world
from helpers.openai_server import Fault, Script, said
from helpers.scripted_world import MADE, STAGES, contents

from ltgc.commands import preview
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.descriptions import TEMPLATES, ClassTemplate
from ltgc.pipeline.errors import LTGCError

COUNTS = {"rose": 9, "tulip": 2, "lily": 3, "iris": 4, "daisy": 5}
TARGET = 6


@pytest.fixture
def world(running_server: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The stages of the preview run in this process."""
    running_server.reset()
    monkeypatch.chdir(tmp_path)
    scripted_world.build(tmp_path, running_server, COUNTS, TARGET)
    by_name = {stage.__name__.split(".")[1]: stage for stage in STAGES}

    def run(stage: str) -> None:
        with chdir(preview.FOLDER):
            by_name[stage].main()

    monkeypatch.setattr(preview, "run", run)
    return running_server


def change(**sections: dict) -> None:
    values = yaml.safe_load(params.PARAMS.read_text())
    for name, section in sections.items():
        values[name] |= section
    params.PARAMS.write_text(yaml.safe_dump(values))


def prices() -> None:
    values = yaml.safe_load(params.PARAMS.read_text())
    names = {name: values[name]["model"] for name in ("llm", "t2i")}
    values["prices"] = {names["llm"]: {"input": 1000, "output": 1000}, names["t2i"]: {"image": 1}}
    params.PARAMS.write_text(yaml.safe_dump(values))


def test_the_real_run_pays_for_nothing_that_the_preview_asked_and_finds_its_workspace_untouched(world):
    params.LOCK.write_text("stages: {}\n")
    for name in MADE:  # of a run before
        (Path(name) / "mine").mkdir(parents=True)
    (Path("store/describe")).mkdir()
    before = contents(".", "data")
    preview.main(2, open_browser=False)
    assert {
        p: data for p, data in contents(".", "data").items() if not p.startswith(("preview/", ".ltgc"))
    } == before
    about = Counter(name for name in COUNTS for request in world.requests if name in json.dumps(request))
    assert about.keys() == {"tulip", "iris"}  # with the fewest photos, and one from the middle of the tail
    described = [
        request for request in world.requests if "messages" in request and "describe this" in said(request)
    ]
    assert len(described) == COUNTS["tulip"] + COUNTS["iris"]

    for stage in STAGES:
        stage.main()
    asked = Counter(json.dumps(request, sort_keys=True) for request in world.requests)
    assert max(asked.values()) == 1
    world.chat = world.image = lambda request: Fault(500)
    preview.main(2, open_browser=False)  # again: all is in the pool
    assert sum(asked.values()) == world.calls


def test_the_page_shows_each_class_what_it_cost_and_what_the_whole_will_cost(world, capfd):
    prices()
    change(filter={"scorer": "probability", "threshold": 0.0})
    preview.main(2, open_browser=False)
    html = preview.PAGE.read_text()
    assert html.count('<details class="class" open') == 2 and "2 of 4 tail classes" in html
    assert "The names of the other 3 classes stand in for their templates." in html
    drawings = (TARGET - 2) + (TARGET - 4)
    assert html.count('alt="generated: ') == drawings and html.count('alt="original of ') == 2 + 4
    assert "red petals in a garden" in html and "not in template" in html
    lacking = sum(TARGET - count for count in (2, 3, 4, 5))
    said = capfd.readouterr().err
    spent, whole = (float(usd.replace(",", "")) for usd in re_usd(said))
    rows = html.split("<tbody>")
    generate_row = next(line for line in rows[1].splitlines() if ">generate<" in line)
    assert f"<td>{drawings}</td>" in generate_row and f"<td>{drawings}.00</td>" in generate_row
    assert f"<td>{lacking}.00</td>" in next(line for line in rows[2].splitlines() if ">generate<" in line)
    assert drawings < spent < whole


def re_usd(said: str) -> list[str]:
    line = next(line for line in said.splitlines() if line.startswith("these classes: "))
    return [part.split(" USD")[0].rsplit(" ", 1)[1] for part in line.split(";")]


def test_the_scorer_sees_all_classes_those_that_were_not_asked_about_by_name(world):
    preview.main(1, open_browser=False)
    with chdir(preview.FOLDER):
        assert [c.name for c in files.read_csv(CLASSES, ClassRecord)] == list(COUNTS)
        sources = [t.source for t in files.read_jsonl(TEMPLATES, ClassTemplate)]
    assert sources == ["class_name", "llm", "class_name", "class_name", "class_name"]
    assert "stand in for their templates" not in preview.PAGE.read_text()  # a cosine needs no other class


def test_what_the_user_changes_is_asked_again_and_nothing_else(world):
    preview.main(1, open_browser=False)
    before = world.calls
    Path("prompts").unlink()
    Path("prompts").mkdir()
    for file in (scripted_world.ROOT / "prompts").iterdir():
        text = file.read_text()
        Path("prompts", file.name).write_text(text + "\nBe brief." if file.stem == "summarize" else text)
    preview.main(1, open_browser=False)
    (request,) = world.requests[before:]
    assert said(request).endswith("Be brief.")


def test_it_says_why_it_cannot_run(world):
    preview.FOLDER.mkdir()
    with pytest.raises(LTGCError, match="preview: a folder that `ltgc preview` did not make; rename it"):
        preview.main(1, open_browser=False)
    change(extend={"target": 0})
    with pytest.raises(LTGCError, match=r"extend\.target: no class has fewer than 0 photos"):
        preview.main(1, open_browser=False)
    assert not world.requests
