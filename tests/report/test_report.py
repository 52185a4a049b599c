"""The report: complete, self-contained, safe with any text, and small whatever the data set."""

import base64
import contextlib
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from helpers import finished_pipeline
from helpers.reports import EVIL, make
from markupsafe import escape
from PIL import Image

from ltgc.pipeline import files, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, REJECTED, Attempt
from ltgc.pipeline.artifacts.results import FIG6, FIG7
from ltgc.pipeline.artifacts.runs import Prediction
from ltgc.pipeline.by_class import ByClass
from ltgc.pipeline.errors import LTGCError
from ltgc.report import figures, fold_outs, provenance, sections, selection
from ltgc.report.answers import Pair
from ltgc.report.style import method_name
from ltgc.report.thumbnails import Thumbnails


class Page(HTMLParser):
    """What a browser would make of the page: its elements, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    finished_pipeline.build(root)
    return root


@pytest.fixture(scope="module")
def html(world: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        return make(world, patch)


def test_the_page_says_who_wins_by_how_much(html: str) -> None:
    text = Page(html).text
    assert "BalanceMix against CLIP fine-tune, the best method without drawings" in text
    assert "below it, points against the control, CLIP fine-tune." in text
    assert re.search(r'class="best">60\.5 .*?<small class="up">\+10\.0</small>', html)
    assert re.search(r'class="best">4\.0 .*?<small class="up">-1\.0</small>', html)  # ECE: lower is better


def test_the_page_opens_with_whether_it_helped_where_and_what_it_cost(html: str) -> None:
    text = Page(html).text
    assert (
        text.index("Did it help?")
        < text.index("Where?")
        < text.index("What did it cost?")
        < text.index("Comparison")
    )
    assert re.search(
        r"\S+ against CLIP \S+ ?\S*, the best method without drawings: \+\d+\.\d .* points on few-shot classes",
        text,
    )
    assert re.search(r"\d classes are better, \d worse; most gained: ", text)
    assert 'class="gallery"' in html and "· 0 generated" not in html


def test_the_page_shows_every_part_of_the_run(html: str) -> None:
    page = Page(html)
    assert [a["id"] for a in page.all("section")] == [
        "comparison", "data", "loops", "gallery", "classes", "confusions", "quality", "rerun"
    ]  # fmt: skip
    for needed in (
        "1 cannot be used", "truncated or corrupt",
        "6 accepted at once", "3 accepted after refinement", "3 rejected", "3 duplicate", "3 repeats",
        "38 descriptions were wanted for 3 tail classes", "1 accepted in the end", "threshold 0.25",
        "A photo of the class Edelweiss with {spurred petals}{yellow stamens}",
        "0.400 generated, 0.200 original", "1 of 9 generated images are nearly a test image",
        "target: 20", "not in a git repository", "pydantic",
    ):  # fmt: skip
        assert needed in page.text, needed
    originals = [a for a in page.all("img") if a["alt"].startswith("original of")]
    assert len(originals) == 12 + 6 + 4  # of the classes that something was generated for


def test_a_refinement_shows_both_descriptions_scores_and_images(html: str) -> None:
    (chain,) = re.findall(r'<ol class="chain"(?:(?!</ol>).)*0\.290(?:(?!</ol>).)*</ol>', html, re.S)[:1]
    assert "0.210 &lt; 0.250 refined" in chain and "0.290 ≥ 0.250 accepted" in chain
    assert "plain petals" in chain and "<mark>horned</mark> petals" in chain
    assert chain.count("data:image/webp;base64,") == 2
    assert html.count('<ol class="chain"') == 6  # two a tail class: one mended, one given up


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run(html: str) -> None:
    page = Page(html)
    assert page.all("iframe") == [] and [a["rel"] for a in page.all("link")] == ["icon"]
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_class_names_and_model_text_are_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{EVIL} {n}" for n in range(3)] + [EVIL, "$\\frac{$", "]]></style><script>alert(2)</script>"]
    finished_pipeline.build(tmp_path, names, finished_pipeline.COUNTS)
    finished_pipeline.skip(tmp_path, "clip_zero_shot", EVIL)
    html = make(tmp_path, monkeypatch)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert all(attributes.get("src", "data:").startswith("data:") for attributes in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert html.count("<style") == html.count("</style>")
    for name in names:
        assert str(escape(name)) in html
    assert EVIL in page.text  # shown as it is


def test_without_generated_images_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_pipeline.build(tmp_path, generated=False)
    finished_pipeline.skip(tmp_path, "balancemix", "the generated set is empty")
    text = Page(make(tmp_path, monkeypatch)).text
    assert "BalanceMix was skipped: the generated set is empty" in text
    assert "The generated set is empty: nothing was drawn." in text
    assert "Nothing was generated, so there is nothing to measure." in text
    assert "one of them did not run" in text
    assert "Did it help?" not in text
    for path in (FIG6, FIG7):
        assert Image.open(tmp_path / path).width > 100  # a picture that says so


def test_without_any_method_the_page_still_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_pipeline.build(tmp_path)
    for method in finished_pipeline.METHODS:
        finished_pipeline.skip(tmp_path, method, "no")
    assert "No method could run." in Page(make(tmp_path, monkeypatch)).text


def test_hundreds_of_classes_stay_a_small_page_that_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"class {number}" for number in range(200)]
    monkeypatch.setattr(selection, "CLASSES_SHOWN", 5)
    monkeypatch.setattr(fold_outs, "DESCRIPTIONS", 7)
    finished_pipeline.build(tmp_path, names, [30] * 188 + [3] * 12)
    html = make(tmp_path, monkeypatch)
    assert len(html.encode()) < 1_000_000
    text = Page(html).text
    assert (
        "7 more classes are in" in text
        and "188 classes have enough photos: nothing was generated for them" in text
    )
    assert "3 more are in descriptions/extended.jsonl" in text
    assert html.count('<details class="class"') == 5


def test_thumbnails_stop_at_their_budget_and_are_counted(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.effect_noise((400, 300), 90).save(paths[-1])
    thumbnails = Thumbnails(allowed=1)
    first = thumbnails.uri(paths[0])
    assert first is not None and len(first) < 20_000
    assert [thumbnails.uri(path) for path in paths] == [first, None, None]
    assert thumbnails.left_out == 2
    thumbnails.allow(40_000)
    assert thumbnails.uri(paths[1])


def test_a_missing_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_pipeline.build(tmp_path)
    gone = next((tmp_path / REJECTED).rglob("*.png"))
    gone.unlink()
    with pytest.raises(LTGCError, match=re.escape(gone.relative_to(tmp_path).as_posix())):
        make(tmp_path, monkeypatch)


def test_the_same_run_gives_the_same_bytes(world: Path, html: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures_before = [(world / path).read_bytes() for path in (FIG6, FIG7)]
    assert make(world, monkeypatch) == html
    assert [(world / path).read_bytes() for path in (FIG6, FIG7)] == figures_before


def test_the_plots_that_dvc_yaml_declares_fit_the_files(world: Path, html: str) -> None:
    declared = yaml.safe_load((finished_pipeline.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    for (plot,) in (definition.values() for definition in declared):
        template = (finished_pipeline.ROOT / plot["template"]).read_text(encoding="utf-8")
        ((path, y),) = plot["y"].items()
        header = (world / path).read_text(encoding="utf-8").splitlines()[0].split(",")
        assert {plot["x"], y} <= set(header)
        assert '"<DVC_METRIC_DATA>"' in template
        made = set(re.findall(r"\w+", " ".join(re.findall(r'"as": (\[.*?\]|".*?")', template))))
        fields = set(re.findall(r'"(?:field|on)": "(\w+)"', template))
        assert fields - made - {"rev"} <= set(header), (plot["template"], fields)


def test_figures_take_the_colour_of_the_page_and_share_no_id(html: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(svgs) == 3
    for svg in svgs:
        assert "currentColor" in svg and figures.INK not in svg
    assert "Aquilegia pubescens, 4" in svgs[0]
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_fig7_has_what_was_turned_down_above_what_refinement_gave(world: Path, html: str) -> None:
    attempts = ByClass(world / ATTEMPTS, Attempt)
    classes = files.read_csv(world / CLASSES, ClassRecord)
    chains = selection.mended(attempts, classes, 8)
    assert chains[:2] == selection.mended(attempts, classes, 2)
    assert [chain[0].class_name for chain in chains] == ["Aquilegia pubescens", "Edelweiss", "Marsh marigold"]
    assert all(chain[0].verdict == "refined" and chain[-1].verdict == "accepted" for chain in chains)
    with Image.open(io.BytesIO((world / FIG7).read_bytes())) as image:
        assert image.format == "PNG" and image.width > image.height > 300


def test_confusions_are_counted_a_seed_and_split_into_mended_and_made(world: Path) -> None:
    classes = files.read_csv(world / CLASSES, ClassRecord)

    def seed(*wrong: tuple[int, int]) -> list[Prediction]:
        return [Prediction(path="", label=a, prediction=b, confidence=1) for a, b in [(0, 0), *wrong]]

    before = [seed((1, 0), (1, 0), (2, 1)), seed((1, 0), (2, 1))]
    after = [seed((2, 1), (3, 1)), seed((2, 1))]
    pair = Pair("balancemix", "clip_finetune")
    found = sections.confusions(classes, {"clip_finetune": before, "balancemix": after}, pair)
    rows = {
        kind: [(r["c"].label, r["taken_for"].label, r["change"]) for r in pairs] for kind, pairs in found.items()
    }
    assert rows == {"mended": [(1, 0, -1.5)], "made": [(3, 1, 0.5)]}
    assert sections.confusions(classes, {"clip_finetune": before}, pair) == {}


def test_a_method_that_the_page_does_not_know_keeps_its_own_name() -> None:
    assert method_name("balancemix") == "BalanceMix"
    assert method_name("my_method") == "my_method"


def test_stages_that_ran_here_are_shown_with_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = {"stage": "train", "args": ["mixup", "0"], "seconds": 2.0, "machine": "m", "finished": "2026-01-01"}
    lines = [line | {"seconds": 9.0}, line, line | {"args": ["mixup", "1"], "finished": "2026-01-02"}]
    lines.append({"run": ["mixup", 1], "key": "k", "seconds": 1.5, "machine": "m", "finished": "2026-01-03"})
    (tmp_path / "timings.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    assert provenance.timings() == [
        {"stage": "train", "runs": 2, "seconds": 4.0, "machine": "m", "finished": "2026-01-02"}
    ]


def test_a_stage_notes_its_time_when_it_ends_well_and_other_commands_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def fails(*_: str) -> None:
        raise LTGCError("no")

    for script, main in (("ltgc/doctor.py", print), ("stages/train.py", print), ("stages/evaluate.py", fails)):
        monkeypatch.setattr("sys.argv", [script, "mixup", "0"])
        with contextlib.suppress(SystemExit):
            stage.run(main)
    (entry,) = stage.timings()
    assert (entry["stage"], entry["args"]) == ("train", ["mixup", "0"]) and entry["seconds"] >= 0


def test_hashes_of_the_data_come_from_dvc_lock(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert provenance.hashes(lock) == []
    stages = {name: {"outs": [{"path": f"{name}.csv", "md5": "0" * 32}]} for name in ("prepare", "report")}
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    assert provenance.hashes(lock) == [
        ("prepare", "prepare.csv", "0" * 32)
    ]  # the report's own is of the run before


def test_new_words_are_those_that_the_refined_description_brings() -> None:
    assert fold_outs.new_words(None, "a red poppy") == [("a red poppy", False)]
    assert fold_outs.new_words("a red poppy", "a bright red poppy") == [
        ("a", False),
        ("bright", True),
        ("red poppy", False),
    ]


def test_a_sample_is_spread_over_all_images() -> None:
    assert selection.spaced(list(range(12)), 4) == [0, 3, 6, 9]
    assert selection.spaced([1, 2], 4) == [1, 2]
