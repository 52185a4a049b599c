"""The comparison table: means and spreads over seeds, from runs to metrics/compare.json."""

import csv
import json
from pathlib import Path

import pytest
from helpers import finished_pipeline
from helpers.paths import SHARED

from ltgc.evaluation.comparison import METRICS, best, beyond_noise, control, differences, summarise
from ltgc.evaluation.tables import comparison_table, print_tables, published
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.results import COMPARE, COMPARE_PLOT, PAIRED, PER_CLASS_PLOT
from ltgc.pipeline.artifacts.runs import PER_CLASS, RUN_METRICS, RunMetrics
from ltgc.pipeline.errors import LTGCError
from stages import compare as stage


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    finished_pipeline.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(**values: float | None) -> RunMetrics:
    return RunMetrics.model_validate(dict.fromkeys(METRICS, 50.0) | values)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_mean_and_sample_standard_deviation_over_seeds() -> None:
    summary = summarise({"mixup": [metrics(all=60.0), metrics(all=61.0), metrics(all=65.0)]})
    assert summary["mixup"]["all"] == {"mean": 62.0, "std": 2.65}
    assert summary["mixup"]["few"] == {"mean": 50.0, "std": 0.0}


def test_one_seed_has_no_spread_and_an_empty_group_no_mean() -> None:
    summary = summarise({"mixup": [metrics(few=None)]})
    assert summary["mixup"]["all"] == {"mean": 50.0, "std": 0.0}
    assert summary["mixup"]["few"] == {"mean": None, "std": None}
    assert best(summary, "few") == frozenset()


def test_best_is_highest_accuracy_and_lowest_calibration_error() -> None:
    summary = summarise({"mixup": [metrics(ece=3)], "balancemix": [metrics(ece=2, few=70)]})
    assert best(summary, "few") == {"balancemix"}
    assert best(summary, "ece") == {"balancemix"}
    assert best(summary, "all") == {"mixup", "balancemix"}


def test_the_stage_writes_the_names_that_others_rely_on(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.main()
    comparison = json.loads(COMPARE.read_text())
    assert list(comparison) == [*finished_pipeline.METHODS, "lmm"]
    assert comparison["balancemix"]["all"] == {"mean": 60.5, "std": 0.71}
    assert set(comparison["balancemix"]) == set(METRICS)
    (few,) = [r for r in rows(COMPARE_PLOT) if (r["method"], r["metric"]) == ("clip_finetune", "Few")]
    assert few == {
        "method": "clip_finetune", "metric": "Few", "mean": "40.5", "std": "0.71",
        "seed_0": "40.0", "seed_1": "41.0",
    }  # fmt: skip
    per_class = rows(PER_CLASS_PLOT)
    assert len(per_class) == len(finished_pipeline.NAMES) * len(finished_pipeline.METHODS)
    assert per_class[0] == {
        "label": "0", "class": "Field poppy", "train": "150", "shot": "many",
        "method": "clip_zero_shot", "accuracy": "60.5",
    }  # fmt: skip
    assert "60.5±0.7" in capsys.readouterr().out


def test_a_skipped_method_is_named_with_its_reason_and_left_out_of_the_metrics(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_pipeline.skip(world, "balancemix", "the generated set is [empty]")
    stage.main()
    assert list(json.loads(COMPARE.read_text())) == ["clip_zero_shot", "clip_finetune", "lmm"]
    assert list(json.loads(PAIRED.read_text())) == ["clip_zero_shot"]
    assert "balancemix: the generated set is [empty]" in capsys.readouterr().out


def test_a_missing_run_is_named(world: Path) -> None:
    (RUN_METRICS / "balancemix" / "1.json").unlink()
    with pytest.raises(LTGCError, match=r"metrics/runs/balancemix/1\.json.*dvc repro"):
        stage.main()


def test_the_table_is_printed_again_from_the_file_alone(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.main()
    first = capsys.readouterr().out
    assert "Each less clip_finetune" in first
    assert "clip_finetune is the control" in first
    for folder in (RUN_METRICS, PER_CLASS):
        folder.rename(folder.with_name("gone"))
    print_tables()
    assert capsys.readouterr().out == first


def test_the_best_mean_of_each_column_is_bold() -> None:
    table = comparison_table(summarise({"mixup": [metrics(few=41)], "balancemix": [metrics(few=45)]}))
    few = list(table.columns[list(METRICS).index("few") + 1].cells)
    assert few == ["41.0±0.0", "[bold]45.0±0.0[/]"]


def test_the_control_is_the_best_over_all_of_the_methods_without_drawings() -> None:
    runs = {
        "clip_zero_shot": [metrics(all=61.0)],
        "clip_finetune": [metrics(all=60.0, few=99.0)],
        "balancemix": [metrics(all=70.0)],
    }
    assert control(summarise(runs)) == "clip_zero_shot"
    assert control(summarise(runs | {"balanced_photos": [metrics(all=66.0)]})) == "balanced_photos"
    assert control(summarise(runs | {"lift": [metrics(all=66.0)]})) == "lift"
    assert control(summarise({"balancemix": [metrics()]})) is None


def test_without_a_control_there_is_nothing_to_be_different_from(world: Path) -> None:
    for method in ("clip_zero_shot", "clip_finetune"):
        finished_pipeline.skip(world, method, "no photos")
    stage.main()
    assert json.loads(PAIRED.read_text()) == {}


def test_differences_are_taken_seed_by_seed_so_that_what_seeds_share_is_no_noise() -> None:
    runs = {
        "clip_finetune": [metrics(all=60.0, few=None), metrics(all=70.0, few=None)],
        "mixup": [metrics(all=58.0, few=None), metrics(all=69.0, few=None)],
    }
    paired = differences(runs, "clip_finetune")
    assert list(paired) == ["mixup"]
    # The methods' own std is above 7. t(0.975) is 12.71 with one degree of freedom.
    assert paired["mixup"]["all"] == {"mean": -1.5, "std": 0.71, "margin": 6.35}
    assert paired["mixup"]["few"] == {"mean": None, "std": None, "margin": None}


@pytest.mark.parametrize(
    ("mean", "margin", "beyond"), [(-2.6, 2.5, True), (2.4, 2.5, False), (9.0, None, False), (None, None, False)]
)
def test_a_difference_is_beyond_noise_where_its_interval_leaves_out_zero(
    mean: float | None, margin: float | None, beyond: bool
) -> None:
    assert beyond_noise({"mean": mean, "std": 1.0, "margin": margin}) is beyond


def test_the_stage_pairs_with_the_control_over_seeds_and_test_images(world: Path) -> None:
    stage.main()
    paired = json.loads(PAIRED.read_text())
    assert list(paired) == ["clip_zero_shot", "balancemix"]
    few = paired["balancemix"]["few"]
    assert (few["mean"], few["std"]) == (10.0, 0.0)
    # The seeds agree; of five test images of each of three classes, one that BalanceMix gets right decides.
    assert few["margin"] == pytest.approx(1.96 * 100 * (0.2 * 0.8 / 5 / 3) ** 0.5, rel=0.1)
    assert paired["clip_zero_shot"]["few"]["margin"] == 0  # wrong on the same images as the control


def test_the_vision_model_has_one_run_no_spread_is_never_the_best_and_says_what_it_saw(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.main()
    comparison = json.loads(COMPARE.read_text())
    assert comparison["lmm"]["all"] == {"mean": 55.0, "std": None}
    assert comparison["lmm"]["ece"] == {"mean": None, "std": None}
    assert best({"lmm": comparison["lmm"], "mixup": comparison["clip_zero_shot"]}, "all") == {"mixup"}
    printed = " ".join(capsys.readouterr().out.split())
    assert "lmm 55.0 60.0 50.0 – – – –" in printed
    assert "asked once, for the class of 12 test images of 30; not to be held against the other rows" in printed


def test_a_vision_model_that_was_not_asked_has_no_row(world: Path) -> None:
    nothing = AskMetrics(images=0, of=30, all=None, many=None, medium=None, few=None, refused=0, no_class=0)
    files.write_json(ASK, nothing.model_dump())
    stage.main()
    assert list(json.loads(COMPARE.read_text())) == finished_pipeline.METHODS


def test_published_figures_stand_apart_and_are_marked(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.main()
    measured = COMPARE.read_bytes()
    assert "ublished" not in capsys.readouterr().out
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("published: null", "published: places_lt"))
    stage.main()
    assert COMPARE.read_bytes() == measured
    printed = capsys.readouterr().out
    below = printed[printed.index("Published in the paper for places_lt, %: not measured here") :]
    assert "54.1" in below and "LTGC (Table 1)" in below
    assert "54.1" not in printed.replace(below, "")


@pytest.mark.parametrize("name", ["imagenet_lt", "places_lt", "inat2018"])
def test_the_published_figures_are_those_of_the_papers_tables(name: str) -> None:
    rows = published(name)
    assert {"LTGC", "CLIP Zero", "CLIP Finetune"} <= {row["method"] for row in rows}
    paper = SHARED / "paper/ltgc.txt"
    if not paper.exists():
        pytest.skip("the paper's text is not here")
    lines = [line.split("\t") for line in paper.read_text(encoding="utf-8").splitlines() if "\t" in line]
    assert len(lines) > 20
    for row in rows:
        figures = {cell for line in lines if line[0].startswith(row["method"]) for cell in line[1:]}
        assert {f"{value:.1f}" for key, value in row.items() if key not in ("table", "method")} <= figures, row
