"""The comparison table: means and spreads over seeds, from runs to metrics/compare.json."""

import csv
import json
from pathlib import Path

import pytest
import small_world

from ltgc import artifacts, compare
from ltgc.artifacts import RunMetrics
from ltgc.errors import LTGCError
from stages import compare as stage


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_world.build(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(**values: float | None) -> RunMetrics:
    return RunMetrics.model_validate(dict.fromkeys(compare.METRICS, 50.0) | values)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_mean_and_sample_standard_deviation_over_seeds() -> None:
    summary = compare.summarise({"mixup": [metrics(all=60.0), metrics(all=61.0), metrics(all=65.0)]})
    assert summary["mixup"]["all"] == {"mean": 62.0, "std": 2.65}
    assert summary["mixup"]["few"] == {"mean": 50.0, "std": 0.0}


def test_one_seed_has_no_spread_and_an_empty_group_no_mean() -> None:
    summary = compare.summarise({"mixup": [metrics(few=None)]})
    assert summary["mixup"]["all"] == {"mean": 50.0, "std": 0.0}
    assert summary["mixup"]["few"] == {"mean": None, "std": None}
    assert compare.best(summary, "few") == frozenset()


def test_best_is_highest_accuracy_and_lowest_calibration_error() -> None:
    summary = compare.summarise({"mixup": [metrics(ece=3)], "balancemix": [metrics(ece=2, few=70)]})
    assert compare.best(summary, "few") == {"balancemix"}
    assert compare.best(summary, "ece") == {"balancemix"}
    assert compare.best(summary, "all") == {"mixup", "balancemix"}


def test_the_stage_writes_the_names_that_others_rely_on(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.main()
    comparison = json.loads(artifacts.COMPARE.read_text())
    assert list(comparison) == small_world.METHODS
    assert comparison["balancemix"]["all"] == {"mean": 60.5, "std": 0.71}
    assert set(comparison["balancemix"]) == set(compare.METRICS)
    (few,) = [r for r in rows(artifacts.COMPARE_PLOT) if (r["method"], r["metric"]) == ("clip_finetune", "Few")]
    assert few == {
        "method": "clip_finetune", "metric": "Few", "mean": "40.5", "std": "0.71",
        "seed_0": "40.0", "seed_1": "41.0",
    }  # fmt: skip
    per_class = rows(artifacts.PER_CLASS_PLOT)
    assert len(per_class) == len(small_world.NAMES) * len(small_world.METHODS)
    assert per_class[0] == {
        "label": "0", "class": "Field poppy", "train": "150", "shot": "many",
        "method": "clip_zero_shot", "accuracy": "60.5",
    }  # fmt: skip
    assert "60.5±0.7" in capsys.readouterr().out


def test_a_skipped_method_is_named_with_its_reason_and_left_out_of_the_metrics(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_world.skip(world, "balancemix", "the generated set is [empty]")
    stage.main()
    assert list(json.loads(artifacts.COMPARE.read_text())) == ["clip_zero_shot", "clip_finetune"]
    assert "balancemix: the generated set is [empty]" in capsys.readouterr().out


def test_a_missing_run_is_named(world: Path) -> None:
    (artifacts.RUN_METRICS / "balancemix" / "1.json").unlink()
    with pytest.raises(LTGCError, match=r"metrics/runs/balancemix/1\.json.*dvc repro"):
        stage.main()


def test_the_table_is_printed_again_from_the_file_alone(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.main()
    first = capsys.readouterr().out
    for folder in (artifacts.RUN_METRICS, artifacts.PER_CLASS):
        folder.rename(folder.with_name("gone"))
    compare.main()
    assert capsys.readouterr().out == first


def test_the_best_mean_of_each_column_is_bold() -> None:
    table = compare.table(compare.summarise({"mixup": [metrics(few=41)], "balancemix": [metrics(few=45)]}))
    few = list(table.columns[list(compare.METRICS).index("few") + 1].cells)
    assert few == ["41.0±0.0", "[bold]45.0±0.0[/]"]
