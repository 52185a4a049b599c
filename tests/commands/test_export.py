"""Exported models: what plain open_clip, the adapter and `predict` make of the same images."""

import csv
import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from helpers import training_world
from PIL import Image
from safetensors.torch import load_file

from ltgc.classifier import tuning
from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip.weights import load_clip
from ltgc.commands import export, predict
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.runs import MODELS
from ltgc.pipeline.errors import LTGCError
from stages import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a balancemix run whose adapter does something, and a zero-shot run."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        training_world.world(root, training_world.save_clip(root / "clip"), lr=0.05)
        train.main("balancemix", "0")
        train.main("clip_zero_shot", "0")
    return root


@pytest.fixture
def world(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def pictures(root: Path) -> list[Path]:
    return sorted((root / "photos").rglob("test-*.png"))


def plain_logits(folder: Path, paths: list[Path]) -> torch.Tensor:
    """As anybody would get them from the exported folder: open_clip and two tensors."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    head = load_file(folder / "head.safetensors")
    with torch.inference_mode():
        images = torch.stack([preprocess(Image.open(path)) for path in paths])
        features = model.eval().encode_image(images, normalize=True)
        return head["logit_scale"].float() * features @ F.normalize(head["weight"], dim=-1).T


@pytest.mark.parametrize("method", ["balancemix", "clip_zero_shot"])
def test_adapter_plain_open_clip_and_predict_agree(world: Path, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "out" / "exported"
    export.main(method, 0, folder)
    paths = pictures(world)
    network = training_world.load_tiny(f"local-dir:{world / 'clip'}")
    adapted = load_classifier(MODELS / method / "0", network)
    with torch.inference_mode():
        ours = adapted(torch.stack([network.pixels(Image.open(path)) for path in paths]))
    plain = plain_logits(folder, paths)
    torch.testing.assert_close(plain, ours, atol=1e-5, rtol=0)
    bare = Classifier(network.model.visual, adapted.head, adapted.logit_scale)
    changed = (bare(torch.stack([network.pixels(Image.open(path)) for path in paths])) - ours).abs().max()
    assert bool(changed > 0.01) is (method == "balancemix")  # else the test shows nothing
    rows = {row.image: row for row in predict.predict(folder, world / "photos", "cpu")}
    assert len(rows) == len(list((world / "photos").rglob("*.png")))
    probabilities, labels = plain.softmax(-1).max(-1)
    for path, probability, label in zip(paths, probabilities, labels, strict=True):
        row = rows[path.relative_to(world / "photos").as_posix()]
        assert row.class_name == training_world.NAMES[label]
        assert row.probability == pytest.approx(float(probability), abs=1e-5)


def test_the_exported_adapter_is_pefts_and_gives_the_same_network(world: Path, tmp_path: Path) -> None:
    export.main("balancemix", 0, tmp_path / "exported")
    saved = {path.name for path in (tmp_path / "exported").iterdir()}
    assert saved == {
        "open_clip_model.safetensors", "open_clip_config.json", "head.safetensors", "classes.json", "lora"
    }  # fmt: skip
    (tmp_path / "exported/lora").rename(tmp_path / "exported/adapter")
    (tmp_path / "exported/adapter").rename(tmp_path / "adapter")
    (tmp_path / "head.safetensors").write_bytes((tmp_path / "exported/head.safetensors").read_bytes())
    network = training_world.load_tiny(f"local-dir:{world / 'clip'}")
    pixels = torch.stack([network.pixels(Image.open(path)) for path in pictures(world)])
    with torch.inference_mode():
        first = load_classifier(tmp_path, network)(pixels)
        second = load_classifier(MODELS / "balancemix/0", network)(pixels)
    assert torch.equal(first, second)


def test_a_model_and_photos_are_all_that_predict_needs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a folder without anything of the pipeline; what cannot be read is listed with its reason."""
    export.main("balancemix", 0, tmp_path / "model")
    photos = tmp_path / "my photos"
    (photos / "deeper").mkdir(parents=True)
    Image.open(pictures(world)[0]).convert("CMYK").save(photos / "deeper/Ünï.JPG")
    (photos / "broken.png").write_bytes(pictures(world)[0].read_bytes()[:60])
    (photos / "empty.jpg").touch()
    (photos / "notes.txt").write_text("not an image")
    monkeypatch.chdir(tmp_path)
    predict.main(Path("model"), Path("my photos"), Path("predictions.csv"))
    assert "3 images, 2 of them could not be read" in " ".join(capfd.readouterr().err.split())
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["broken.png", "deeper/Ünï.JPG", "empty.jpg"]
    assert rows[1]["class_name"] in training_world.NAMES and 1 / 3 < float(rows[1]["probability"]) <= 1
    assert rows[0]["error"].startswith("truncated or corrupt") and rows[2]["error"] == "empty"
    assert [row["class_name"] for row in rows] == ["", rows[1]["class_name"], ""]


def test_an_export_overwrites_nothing_and_is_whole_or_absent(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(LTGCError, match="exists already"):
        export.main("balancemix", 0, folder)
    (folder / "mine").unlink()
    monkeypatch.setattr(export, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export.main("balancemix", 0, folder)
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())


def test_what_cannot_be_exported_says_what_can(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LTGCError, match=r"models/mixup/0/run\.json: not there"):
        export.main("mixup", 0, tmp_path / "x")
    run = json.loads((MODELS / "balancemix/0/run.json").read_text())
    files.write_json(MODELS / "skipped/0/run.json", run | {"skipped": "no images"})
    with pytest.raises(LTGCError, match="nothing was trained: no images"):
        export.main("skipped", 0, tmp_path / "x")
    values = params.load("clip", "train")
    monkeypatch.setattr(export, "load_classifier", lambda *_: adapted(values))
    with pytest.raises(LTGCError, match=r"adaptformer adds layers .* is full, lora, linear_probe and zero-shot"):
        export.main("balancemix", 0, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def adapted(values: params.Params) -> Classifier:
    settings = values.train.model_copy(update={"tuning": "adaptformer"})
    visual = tuning.apply(load_clip(values.clip, "cpu").model.visual, settings)
    return Classifier(visual, torch.ones(3, 24), 1.0)


def test_a_folder_that_holds_no_model_is_one_line(world: Path) -> None:
    with pytest.raises(LTGCError, match=r"nowhere: has no classes\.json"):
        predict.main(Path("nowhere"), Path("photos"), Path("o.csv"))
