"""Exported models: what plain open_clip, the adapter and `predict` make of the same images."""

import csv
import doctest
import json
import shutil
import tarfile
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers import training_world
from helpers.paths import ROOT
from helpers.server_settings import png
from PIL import Image
from safetensors.torch import load_file

from ltgc import notebook
from ltgc.classifier import branches, tuning
from ltgc.classifier.network import Classifier, load_classifier
from ltgc.classifier.sentences import Sentences
from ltgc.clip.weights import load_clip
from ltgc.commands import export, export_drawings, predict
from ltgc.data import shards
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import LICENSES, PhotoLicense
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, Attempt, Verdict, attempt_id, attempt_image
from ltgc.pipeline.artifacts.runs import MODELS, RUN_METRICS, RunMetrics
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
        "open_clip_model.safetensors", "open_clip_config.json", "head.safetensors", "classes.json", "lora",
        "README.md",
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


def test_a_run_that_decides_by_a_branch_is_not_exported_as_if_it_did_not(world: Path, tmp_path: Path) -> None:
    run = MODELS / "with_sentences/0"  # as vl_ltr leaves one
    shutil.copytree(MODELS / "balancemix/0", run)
    branches.save(Sentences(torch.ones(3, 2, 24), torch.zeros(3, 2, dtype=torch.bool), torch.ones(())), run)
    with pytest.raises(LTGCError, match=r"more than encoder and head \(sentences\.safetensors\).* loads it"):
        export.main("with_sentences", 0, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def adapted(values: params.Params) -> Classifier:
    settings = values.train.model_copy(update={"tuning": "adaptformer"})
    visual = tuning.apply(load_clip(values.clip, "cpu").model.visual, settings)
    return Classifier(visual, torch.ones(3, 24), 1.0)


def test_a_folder_that_holds_no_model_is_one_line(world: Path) -> None:
    with pytest.raises(LTGCError, match=r"nowhere: has no classes\.json"):
        predict.main(Path("nowhere"), Path("photos"), Path("o.csv"))


def test_the_folder_has_a_model_card_and_ordinary_permissions(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    metrics = RunMetrics(all=60.5, few=None)
    files.write_json(RUN_METRICS / "balancemix/0.json", metrics.model_dump())
    export.main("balancemix", 0, folder)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    (result,) = yaml.safe_load(front)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy", "value": 60.5}]
    assert "balancemix" in text and "not stated (`licenses` in params.yaml)" in text
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o644}


def drawing(index: int, verdict: Verdict = "accepted") -> Attempt:
    id = attempt_id("0000-rose", index, 0)
    return Attempt(
        id=id, label=0, class_name="rose|<b>", index=index, round=0, prompt="A photo of the class rose.",
        seed=index, image=attempt_image(id, verdict) if verdict == "accepted" else None, score=0.5, threshold=0.25,
        verdict=verdict, refines=None, reason=None if verdict == "accepted" else "refused",
    )  # fmt: skip


def pack_accepted(attempts: list[Attempt]) -> None:
    members = [
        pair
        for a in attempts
        for pair in (
            (Path(a.image or "").name, png()),
            (f"{Path(a.image or '').stem}.json", a.model_dump_json().encode()),
        )
    ]
    shards.write(ACCEPTED / "0000-rose.tar", members)


def test_the_drawings_are_exported_as_marked_webdataset_shards_with_a_card(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    attempts = [drawing(0), drawing(1), drawing(2, "failed")]
    files.write_jsonl(ATTEMPTS, attempts)
    with pytest.raises(LTGCError, match="no drawing was accepted"):
        export_drawings.main(Path("out/drawings"))
    pack_accepted(attempts[:2])
    stated = [PhotoLicense(path=f"{i}.jpg", license="CC BY-NC 4.0") for i in range(3)]
    files.write_records_csv(LICENSES, stated, PhotoLicense)
    export_drawings.main(Path("out/drawings"))
    with tarfile.open("out/drawings/train/0000-rose.tar") as tar:
        assert tar.getnames() == [f"0000-rose-000{i}-0.{kind}" for i in (0, 1) for kind in ("png", "json")]
        assert b"trainedAlgorithmicMedia" in tar.extractfile("0000-rose-0000-0.png").read()
        about = json.load(tar.extractfile("0000-rose-0001-0.json"))
    assert about["class_name"] == "rose|<b>" and about["seed"] == 1 and None not in about.values()
    _, front, text = Path("out/drawings/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["configs"][0]["data_files"] == [{"split": "train", "path": "train/*.tar"}]
    assert "- Photos that the descriptions began with: CC BY-NC 4.0 (3 photos)" in text
    assert "Every image is synthetic" in text and r"| rose\|&lt;b> | 2 | 1 |" in text
    with pytest.raises(LTGCError, match="exists already"):
        export_drawings.main(Path("out/drawings"))


def test_hugging_face_datasets_loads_the_exported_drawings(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="reads the export: pip install -e '.[dev]'")
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    attempts = [drawing(0), drawing(1)]
    files.write_jsonl(ATTEMPTS, attempts)
    pack_accepted(attempts)
    export_drawings.main(Path("drawings"))
    loaded = datasets.load_dataset("drawings", split="train", cache_dir=tmp_path / "cache")  # as the card says
    assert loaded.num_rows == 2
    assert [row["png"].size for row in loaded] == [(4, 4)] * 2
    assert [row["json"]["seed"] for row in loaded] == [0, 1]
    assert loaded[0]["json"]["class_name"] == "rose|<b>"


def test_the_examples_of_the_notebook_api_are_right(world: Path, tmp_path: Path, monkeypatch) -> None:
    export.main("clip_zero_shot", 0, tmp_path / "exported")
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(notebook, extraglobs={"exported": tmp_path / "exported"})
    assert failed == 0 and tried >= 12
