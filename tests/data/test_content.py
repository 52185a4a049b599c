"""The manifest says which bytes each image has, and what reads an image that has others says so."""

from pathlib import Path

import pytest
import torch
from helpers.photo_folders import put, section

from ltgc.clip import pixels
from ltgc.data import images, shards
from ltgc.data.dataset import prepare_dataset
from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file
from ltgc.pipeline.errors import LTGCError
from stages import evaluate, train

CHANGED = r"not the image that data/manifest\.csv lists.*`dvc repro --force --single-item prepare`"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    put(tmp_path / "train/a", 3, suffix=".png")
    put(tmp_path / "test/a", 2, suffix=".png")
    return tmp_path


def test_a_changed_photo_changes_its_line_of_the_manifest_and_no_other(photos: Path) -> None:
    before = prepare_dataset(section(photos)).images
    assert prepare_dataset(section(photos, verify=False)).images == before
    assert len({image.hash for image in before}) == 3  # the test photos are copies of the first training photos
    with (photos / "test/a/000.png").open("ab") as file:
        file.write(b"one byte that no decoder reads")
    after = prepare_dataset(section(photos)).images
    changed = [(b.path, b.hash == a.hash) for b, a in zip(before, after, strict=True) if a != b]
    assert changed == [("test/a/000.png", False)]


def test_an_image_is_read_only_while_it_is_the_one_that_the_manifest_lists(photos: Path) -> None:
    listed = [image_file(photos, image) for image in prepare_dataset(section(photos)).images]
    assert all(images.load(file).size == (8, 8) for file in listed)
    (photos / "train/a/000.png").write_bytes((photos / "train/a/001.png").read_bytes())
    for read in (images.read, images.load, images.required, images.data_url):
        with pytest.raises(LTGCError, match=rf"train/a/000\.png: {CHANGED}"):
            read(listed[0])
    assert images.read(ImageFile(listed[0].path)) == images.read(photos / "train/a/000.png")


def test_a_member_of_a_shard_is_held_against_its_hash_too(tmp_path: Path) -> None:
    shard = tmp_path / "images.tar"
    shards.write(shard, [("train/a/0.png", b"some"), ("train/a/1.png", b"other")])
    file = ImageFile(f"{shard}/train/a/1.png", images.content_hash(b"other"))
    assert images.read(file) == b"other"
    shards.write(shard, [("train/a/0.png", b"some"), ("train/a/1.png", b"another")])
    with pytest.raises(LTGCError, match=CHANGED):
        images.read(file)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_worker_processes_read_are_held_against_it(photos, model, workers) -> None:
    listed = [image_file(photos, image) for image in prepare_dataset(section(photos)).images]
    (photos / "train/a/000.png").write_bytes((photos / "train/a/001.png").read_bytes())
    files = pixels.FilePixels(listed, model)
    reads = [(torch.tensor([k]), None) for k in range(len(listed))]
    with pytest.raises(LTGCError, match=rf"train/a/000\.png: {CHANGED}"):
        list(pixels.batches(files, reads, torch.device("cpu"), workers))


def test_a_stage_names_a_photo_that_changed_or_is_gone(in_world) -> None:
    root = in_world()
    train.main("clip_zero_shot", "0")
    train.main("clip_zero_shot", "1")
    photo = next((root / "photos").rglob("test-0.png"))
    photo.write_bytes((photo.with_name("test-1.png")).read_bytes())
    with pytest.raises(LTGCError, match=CHANGED):
        evaluate.main("clip_zero_shot")
    photo.unlink()
    with pytest.raises(LTGCError, match=r"test-0\.png: not there; run `dvc pull` or `dvc repro`"):
        evaluate.main("clip_zero_shot")
