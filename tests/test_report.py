"""The report: complete, self-contained, safe with any text, and small whatever the data set."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import small_world
import yaml
from markupsafe import escape
from PIL import Image

from ltgc import artifacts, report
from ltgc.errors import LTGCError
from stages import compare as compare_stage
from stages import loops as loops_stage
from stages import report as report_stage

EVIL = "<img src=x onerror=alert(1)>"


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


def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the stages up to the report on the artifacts in `root`."""
    monkeypatch.chdir(root)
    params = root / "params.yaml"
    # The drawings of the small world carry no truth; tests of ltgc.loops cover the section that shows it.
    text = params.read_text().replace("source: wildflowers", "source: folder")
    params.write_text(text.replace("root: embedded/wildflowers", "root: data/images"))
    compare_stage.main()
    loops_stage.main()
    report_stage.main()
    return artifacts.REPORT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    small_world.build(root)
    return root


@pytest.fixture(scope="module")
def html(world: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        return make(world, patch)


def test_the_page_says_who_wins_by_how_much(html: str) -> None:
    text = Page(html).text
    assert "On few-shot classes, BalanceMix reaches 50.5 % ±0.7 , +10.0 points against CLIP fine-tune" in text
    assert "more than both standard deviations" in text
    assert re.search(r'<td class="best">60\.5 .*?<small class="up">\+10\.0</small>', html)
    assert re.search(r'<td class="best">4\.0 .*?<small class="up">-1\.0</small>', html)  # ECE: lower is better


def test_the_page_calls_a_difference_within_the_noise_no_more_than_that(
    html: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    before = artifacts.COMPARE.read_text(encoding="utf-8")
    comparison = json.loads(before)
    base = comparison["clip_finetune"]["few"]
    comparison["balancemix"]["few"] = {"mean": base["mean"] + 0.1, "std": 0.7}
    artifacts.write_json(artifacts.COMPARE, comparison)
    report_stage.main()
    text = Page(artifacts.REPORT.read_text(encoding="utf-8")).text
    artifacts.COMPARE.write_text(before, encoding="utf-8")
    artifacts.REPORT.write_text(html, encoding="utf-8")
    assert "+0.1 points against CLIP fine-tune ( less than both standard deviations" in text.replace(
        "(less", "( less"
    )


def test_the_page_shows_every_part_of_the_run(html: str) -> None:
    page = Page(html)
    assert [a["id"] for a in page.all("section")] == [
        "comparison", "data", "loops", "gallery", "refinement", "descriptions", "params"
    ]  # fmt: skip
    for needed in (
        "6 accepted at once", "3 accepted after refinement", "3 rejected", "3 duplicate", "3 repeats",
        "38 descriptions were wanted for 3 tail classes", "1 accepted in the end", "target: 20",
        "A photo of the class Edelweiss with {spurred petals}{yellow stamens}",
    ):  # fmt: skip
        assert needed in page.text, needed
    originals = [a for a in page.all("img") if a["alt"].startswith("original of")]
    assert len(originals) == 6 + 6 + 4  # at most six a class


def test_a_refinement_shows_both_descriptions_scores_and_images(html: str) -> None:
    (chain,) = re.findall(r'<ol class="chain"(?:(?!</ol>).)*0\.290(?:(?!</ol>).)*</ol>', html, re.S)[:1]
    assert "0.210 &lt; 0.250 refined" in chain and "0.290 ≥ 0.250 accepted" in chain
    assert "plain petals" in chain and "<mark>horned</mark> petals" in chain
    assert chain.count("data:image/webp;base64,") == 2
    assert html.count('<ol class="chain"') == 6  # two a tail class: one mended, one given up


def test_nothing_is_fetched_and_nothing_runs(html: str) -> None:
    page = Page(html)
    assert page.all("script") == [] and page.all("link") == [] and page.all("iframe") == []
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script" not in policy


def test_class_names_and_model_text_are_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{EVIL} {n}" for n in range(3)] + [EVIL, "$\\frac{$", "]]></style><script>alert(2)</script>"]
    small_world.build(tmp_path, names, small_world.COUNTS)
    small_world.skip(tmp_path, "clip_zero_shot", EVIL)
    html = make(tmp_path, monkeypatch)
    page = Page(html)
    assert page.all("script") == []
    assert all(attributes.get("src", "data:").startswith("data:") for attributes in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert html.count("<style") == html.count("</style>")
    for name in names[3:]:  # the tail has fold-outs
        assert f"<b>{escape(name)}</b>" in html
    assert EVIL in page.text  # shown as it is


def test_without_generated_images_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_world.build(tmp_path, generated=False)
    small_world.skip(tmp_path, "balancemix", "the generated set is empty")
    text = Page(make(tmp_path, monkeypatch)).text
    assert "BalanceMix was skipped: the generated set is empty" in text
    assert "The generated set is empty: nothing was drawn." in text
    assert "No drawing was turned down." in text
    assert "BalanceMix reaches" not in text


def test_without_any_method_the_page_still_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_world.build(tmp_path)
    for method in small_world.METHODS:
        small_world.skip(tmp_path, method, "no")
    assert "No method could run." in Page(make(tmp_path, monkeypatch)).text


def test_hundreds_of_classes_stay_a_small_page_that_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"class {number}" for number in range(200)]
    monkeypatch.setattr(report, "CLASSES_SHOWN", 5)
    monkeypatch.setattr(report, "DESCRIPTIONS_SHOWN", 7)
    small_world.build(tmp_path, names, [30] * 188 + [3] * 12)
    html = make(tmp_path, monkeypatch)
    assert len(html.encode()) < 1_000_000
    text = Page(html).text
    assert text.count("7 more classes are in") == 3
    assert "3 more are in descriptions/extended.jsonl" in text
    assert html.count("<details") == 5 + 5 + 2


def test_thumbnails_stop_at_their_budget_and_are_counted(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.effect_noise((400, 300), 90).save(paths[-1])
    thumbnails = report.Thumbnails(budget=1)
    first = thumbnails.uri(paths[0])
    assert first is not None and len(first) < 20_000
    assert [thumbnails.uri(path) for path in paths] == [first, None, None]
    assert thumbnails.left_out == 2


def test_a_missing_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_world.build(tmp_path)
    gone = next((tmp_path / artifacts.REJECTED).rglob("*.png"))
    gone.unlink()
    with pytest.raises(LTGCError, match=re.escape(gone.relative_to(tmp_path).as_posix())):
        make(tmp_path, monkeypatch)


def test_the_same_run_gives_the_same_bytes(world: Path, html: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(world, monkeypatch) == html


def test_the_plots_that_dvc_yaml_declares_fit_the_files(world: Path, html: str) -> None:
    declared = yaml.safe_load((small_world.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    assert len(declared) == 3
    for (plot,) in (definition.values() for definition in declared):
        template = (small_world.ROOT / plot["template"]).read_text(encoding="utf-8")
        ((path, y),) = plot["y"].items()
        header = (world / path).read_text(encoding="utf-8").splitlines()[0].split(",")
        assert {plot["x"], y} <= set(header)
        assert '"<DVC_METRIC_DATA>"' in template
        made = {c["as"] for c in json.loads(template)["transform"] if "as" in c}
        fields = set(re.findall(r'"(?:field|on)": "(\w+)"', template)) | made
        assert fields - {"rev"} <= set(header), (plot["template"], fields)


def test_figures_take_the_colour_of_the_page(html: str) -> None:
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert "currentColor" in svg and report.INK not in svg
    assert "Aquilegia pubescens" in svg


def test_new_words_are_those_that_the_refined_description_brings() -> None:
    assert report.new_words(None, "a red poppy") == [("a red poppy", False)]
    assert report.new_words("a red poppy", "a bright red poppy") == [
        ("a", False),
        ("bright", True),
        ("red poppy", False),
    ]


def test_a_sample_is_spread_over_all_images() -> None:
    assert report.spaced(list(range(12)), 4) == [0, 3, 6, 9]
    assert report.spaced([1, 2], 4) == [1, 2]
