"""Stage evaluate: every seed of a method on the test split, with the model as it was saved."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.training_world import COUNTS, NAMES, SHOTS, load_tiny, world
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file

from ltgc.classifier import vit
from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.pipeline.artifacts.descriptions import TEMPLATES
from ltgc.pipeline.artifacts.runs import RunMetrics
from ltgc.pipeline.errors import LTGCError
from stages.evaluate import main as evaluate_stage
from stages.train import main as train_stage


@pytest.fixture
def root(in_world: Callable[..., Path]) -> Path:
    return in_world(lr=0.02)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train_all(method: str) -> None:
    for seed in "01":
        train_stage(method, seed)


def test_predictions_come_from_the_saved_adapter_and_head(root: Path, clip_name: str) -> None:
    train_all("balancemix")
    evaluate_stage("balancemix")
    for seed in (0, 1):
        # The same by hand: peft, open_clip and CLIP's own preprocessing, one image at a time.
        folder = root / f"models/balancemix/{seed}"
        clip = load_tiny(clip_name)
        visual = PeftModel.from_pretrained(
            vit.rebuild_attention(clip.model.visual), str(folder / "adapter")
        ).eval()
        head = load_file(folder / "head.safetensors")["weight"]
        predictions = rows(root / f"predictions/balancemix/{seed}.csv")
        assert len(predictions) == sum(test for _, _, test, _ in COUNTS)
        for row in predictions:
            with torch.inference_mode():
                feature = visual(clip.preprocess(Image.open(root / "photos" / row["path"]))[None])
            logits = clip.logit_scale * torch.cosine_similarity(feature, head)
            assert row["path"].startswith(f"{int(row['label']):04d}-") and "/test-" in row["path"]
            assert int(row["prediction"]) == logits.argmax()
            assert float(row["confidence"]) == pytest.approx(logits.softmax(0).max().item(), abs=1e-4)


def test_metrics_and_accuracies_agree_with_the_predictions(root: Path) -> None:
    train_all("clip_finetune")
    evaluate_stage("clip_finetune")
    scores = json.loads((root / "metrics/runs/clip_finetune/1.json").read_text())
    predictions = rows(root / "predictions/clip_finetune/1.csv")
    per_class = rows(root / "plots/per_class/clip_finetune/1.csv")
    assert [(r["label"], r["class_name"], r["train"], r["shot"]) for r in per_class] == [
        (str(label), NAMES[label], str(COUNTS[label][0]), SHOTS[label]) for label in range(3)
    ]
    for label, row in enumerate(per_class):
        right = [p["prediction"] == p["label"] for p in predictions if p["label"] == str(label)]
        assert float(row["accuracy"]) == round(100 * sum(right) / len(right), 2) == scores[SHOTS[label]]
    assert scores["all"] == round(100 * sum(p["prediction"] == p["label"] for p in predictions) / 9, 2)
    assert scores["skipped"] is None
    assert set(scores) == set(RunMetrics.model_fields)


@torch.inference_mode()
def test_zero_shot_is_the_class_whose_template_is_nearest(root: Path, clip_name: str) -> None:
    train_all("clip_zero_shot")
    evaluate_stage("clip_zero_shot")
    clip = load_tiny(clip_name)
    templates = [json.loads(line)["template"] for line in (root / TEMPLATES).read_text().splitlines()]
    texts = clip.model.encode_text(clip.tokenize(templates), normalize=True)
    for row in rows(root / "predictions/clip_zero_shot/0.csv"):
        image = clip.preprocess(Image.open(root / "photos" / row["path"]))
        assert int(row["prediction"]) == (clip.model.encode_image(image[None], normalize=True) @ texts.T).argmax()
    first, second = (root / f"predictions/clip_zero_shot/{seed}.csv" for seed in (0, 1))
    assert first.read_bytes() == second.read_bytes()


def test_a_skipped_run_stays_skipped_with_its_reason(tmp_path: Path, clip_name: str, monkeypatch) -> None:
    world(tmp_path, clip_name, generated=False)
    monkeypatch.chdir(tmp_path)
    train_all("balancemix")
    evaluate_stage("balancemix")
    scores = json.loads((tmp_path / "metrics/runs/balancemix/0.json").read_text())
    assert "needs generated images" in scores.pop("skipped")
    assert set(scores.values()) == {None}
    assert rows(tmp_path / "predictions/balancemix/0.csv") == []
    assert rows(tmp_path / "plots/per_class/balancemix/0.csv") == []


def test_a_class_without_test_image_is_named_and_nothing_is_written(root: Path) -> None:
    train_all("clip_zero_shot")
    lines = (root / MANIFEST).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ("green fern" in line and ",test," in line)]
    (root / MANIFEST).write_text("".join(kept))
    with pytest.raises(LTGCError, match="'green fern' has no test image"):
        evaluate_stage("clip_zero_shot")
    assert not (root / "metrics").exists() and not (root / "predictions").exists()


def test_a_seed_that_was_not_trained_is_named(root: Path) -> None:
    train_stage("clip_zero_shot", "0")
    with pytest.raises(LTGCError, match=r"models/clip_zero_shot/1/run\.json: not there"):
        evaluate_stage("clip_zero_shot")


def test_a_wrong_command_line_shows_the_right_one() -> None:
    with pytest.raises(LTGCError, match=r"usage: python -m stages\.evaluate \[METHOD\]"):
        evaluate_stage("balance_mix")
