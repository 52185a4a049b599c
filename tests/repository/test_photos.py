"""One walk over the photos, with real DVC: `prepare` alone depends on them, and its manifest reruns the others."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import dvc_skeleton
from helpers.cloned_pipeline import run
from helpers.paths import ROOT
from helpers.photo_folders import put
from PIL import Image

READERS = {"describe", "generate", "quality", "train", "evaluate", "ask", "report"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's dvc.yaml on photos of one's own, reproduced; only prepare really runs."""
    folder = tmp_path_factory.mktemp("pipeline")
    data = {"source": "folder", "root": "photos"}
    dvc_skeleton.build(folder, real=("prepare",), data=data, methods=["balancemix"], seeds=[0])
    put(folder / "photos/train/daisy", 4)
    put(folder / "photos/test/daisy", 2)
    done = run(folder, "dvc", "repro")
    assert "is empty" not in done.stdout + done.stderr
    return folder


def rerun(folder: Path) -> set[str]:
    """The stages that `dvc repro` runs, without the items of a matrix."""
    return set(re.findall(r"Running stage '(\w+)", run(folder, "dvc", "repro").stdout))


def test_a_changed_photo_reruns_prepare_and_what_reads_photos_and_no_other_stage(pipeline: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(pipeline / "photos/train/daisy/000.jpg")
    assert rerun(pipeline) == {"prepare", *READERS}
    photo = pipeline / "photos/test/daisy/001.jpg"
    photo.write_bytes(photo.read_bytes())
    assert rerun(pipeline) == set()


def test_a_synonym_more_asks_again_and_does_nothing_else(pipeline: Path) -> None:
    (pipeline / "photos/synonyms.csv").write_text("class_name,synonym\ndaisy,bellis\n")
    # The file beside the class folders is a finding, which the report shows.
    assert rerun(pipeline) == {"prepare", "ask", "report"}


def test_no_stage_but_prepare_depends_on_photos() -> None:
    for file in ("dvc.yaml", "ablations/dvc.yaml", "ablations/photos/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            dependencies = stage.get("do", stage).get("deps", [])
            photos = {"${data.root}", "${data.images}", "data", "data/images.tar"} & set(dependencies)
            assert photos == ({"${data.root}"} if name == "prepare" else set()), name
