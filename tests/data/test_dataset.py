"""Data sources, splits, long tails and bad input, on small folders of real image files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import warm_commands
from helpers.paths import ROOT
from helpers.photo_folders import counts, put, section
from PIL import Image

from ltgc.data import images, shards
from ltgc.data.dataset import prepare_dataset
from ltgc.data.inspection import IMAGES_PER_WORKER
from ltgc.data.roots import image_root
from ltgc.data.splits import long_tail_profile, shot_group
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    FINDINGS,
    MADE_IMAGES,
    MANIFEST,
    ClassRecord,
    Finding,
    ImageRecord,
)
from ltgc.pipeline.errors import LTGCError

CLOTHING = ROOT / "../shared/data/clothing"


def test_split_folders_are_read_whatever_validation_is_called(tmp_path: Path) -> None:
    for name in ("val", "valid", "Validation"):
        root = tmp_path / name
        for split, count in (("train", 3), (name, 2), ("test", 1)):
            put(root / split / "red_fox", count)
            put(root / split / "t-shirt", count)
        dataset = prepare_dataset(section(root))
        assert counts(dataset) == {"red fox": (3, 2, 1), "t-shirt": (3, 2, 1)}
        assert [c.label for c in dataset.classes] == [0, 1]
        assert all((root / image.path).is_file() for image in dataset.images)


def test_a_source_without_validation_is_fine(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 2)
    put(tmp_path / "test" / "a", 1)
    assert counts(prepare_dataset(section(tmp_path))) == {"a": (2, 0, 1)}


def test_one_folder_is_split_by_fraction_within_each_class(tmp_path: Path) -> None:
    put(tmp_path / "a", 40)
    put(tmp_path / "b", 2)
    put(tmp_path / "train", 3)  # a class may be called train
    assert counts(prepare_dataset(section(tmp_path))) == {"a": (28, 4, 8), "b": (1, 0, 1), "train": (2, 0, 1)}
    greedy = section(tmp_path, test_fraction=0.9, val_fraction=0.09)
    assert all(train >= 1 and test >= 1 for train, _, test in counts(prepare_dataset(greedy)).values())


def test_the_split_depends_on_the_seed_and_one_more_image_moves_no_other(tmp_path: Path) -> None:
    put(tmp_path / "a", 30)

    def split(seed: int) -> dict[str, str]:
        return {image.path: image.split for image in prepare_dataset(section(tmp_path, seed=seed)).images}

    before = split(0)
    assert split(0) == before
    assert split(1) != before
    put(tmp_path / "a", 1, start=30)
    after = split(0)
    moved = [path for path in before if before[path] != after[path]]
    assert len(moved) <= 2  # only those at a boundary, by rounding


def test_fractions_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be below 1"):
        section(tmp_path, val_fraction=0.5, test_fraction=0.5)


def test_shot_groups_follow_the_papers_bounds() -> None:
    assert [shot_group(n) for n in (1, 19, 20, 100, 101)] == ["few", "few", "medium", "medium", "many"]


def test_the_long_tail_profile_is_that_of_cifar_lt() -> None:
    # Cao et al. 2019: 100 classes, 500 images, ratio 100: 10,847 training images.
    profile = long_tail_profile(500, 100, 100)
    assert (profile[0], profile[-1], sum(profile)) == (500, 5, 10_847)
    assert long_tail_profile(98, 49, 2) == [98, 2]
    assert long_tail_profile(3, 100, 3) == [3, 1, 1]
    assert long_tail_profile(7, 100, 1) == [7]


def test_the_long_tail_takes_training_images_only_and_orders_classes_by_size(tmp_path: Path) -> None:
    for name, train in (("a", 10), ("b", 30), ("c", 10)):
        put(tmp_path / "train" / name, train)
        put(tmp_path / "val" / name, 5)
        put(tmp_path / "test" / name, 4)
    tail = section(tmp_path, long_tail={"head": 20, "ratio": 10})
    assert counts(prepare_dataset(tail)) == {"a": (6, 5, 4), "b": (20, 5, 4), "c": (2, 5, 4)}
    assert prepare_dataset(tail) == prepare_dataset(tail)
    other = tail.model_copy(update={"seed": 1})
    assert prepare_dataset(other).images != prepare_dataset(tail).images
    longer = section(tmp_path, long_tail={"head": 1000, "ratio": 2})
    assert counts(prepare_dataset(longer))["b"] == (30, 5, 4)  # never more than there are


def test_files_that_are_no_images_are_counted_by_reason(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 2)
    put(tmp_path / "train" / "a" / "nested", 1)
    put(tmp_path / "train" / "a" / ".thumbnails", 1)
    put(tmp_path / "test" / "a", 1, suffix=".PNG")
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "loose.jpg").write_text("x")
    (tmp_path / "LICENSE").write_text("x")
    dataset = prepare_dataset(section(tmp_path))
    assert counts(dataset) == {"a": (3, 0, 1)}
    assert sorted((file.path, file.reason) for file in dataset.findings) == [
        ("LICENSE", "outside train/, val/ and test/"),
        ("train/a/.DS_Store", "hidden"),
        ("train/a/.thumbnails", "hidden"),
        ("train/a/notes.txt", "not an image file"),
        ("train/loose.jpg", "not in a class folder"),
    ]


def spoil(root: Path) -> dict[str, str]:
    """Put unusable images into class a: path and reason of each."""
    whole = (root / "train" / "a" / "000.jpg").read_bytes()
    (root / "train" / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "a" / "empty.png").write_bytes(b"")
    (root / "train" / "a" / "text.jpg").write_text("no image")
    (root / "train" / "a" / "link.jpg").symlink_to(root / "gone.jpg")
    Image.new("1", (images.MAX_PIXELS // 5000 + 1, 5000)).save(root / "train" / "a" / "huge.png")
    return {
        "train/a/cut.jpg": "truncated or corrupt",
        "train/a/empty.png": "empty",
        "train/a/huge.png": "over the limit",
        "train/a/link.jpg": "broken link",
        "train/a/text.jpg": "not an image",
    }


def test_a_bad_image_is_an_error_that_names_it_or_is_skipped_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 2)
    put(tmp_path / "test" / "a", 1)
    reasons = spoil(tmp_path)
    with pytest.raises(LTGCError, match=r"train/a/cut\.jpg: truncated.*and 4 more.*data\.on_bad_image"):
        prepare_dataset(section(tmp_path))
    dataset = prepare_dataset(section(tmp_path, on_bad_image="skip"))
    assert counts(dataset) == {"a": (2, 0, 1)}
    assert [file.path for file in dataset.findings if file.kind == "bad"] == list(reasons)
    assert all(reasons[file.path] in file.reason for file in dataset.findings)


def test_odd_but_readable_images_are_taken(tmp_path: Path) -> None:
    put(tmp_path / "test" / "a", 1)
    train = tmp_path / "train" / "a"
    train.mkdir(parents=True)
    Image.new("CMYK", (8, 8)).save(train / "cmyk.jpg")
    Image.new("I;16", (8, 8)).save(train / "grey16.png")
    frames = [Image.new("P", (8, 8), colour) for colour in (1, 2)]
    frames[0].save(train / "animated.gif", save_all=True, append_images=frames[1:])
    assert counts(prepare_dataset(section(tmp_path))) == {"a": (3, 0, 1)}


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({}, "no class folder"),
        ({"train/a": 1, "val/a": 1}, "no test/"),
        ({"train/a": 2, "train/b": 2, "test/a": 1}, "class 'b' .* has no test image"),
        ({"train/a": 2, "test/a": 1, "test/b": 1}, "class 'b' .* has no training image"),
        ({"train/a": 2, "test/a": 1, "val/a": 1, "valid/a": 1}, "both val and valid"),
        ({"a": 4, "b": 1}, "class 'b' has one image"),
        ({"a": 4, "b": 0}, "class 'b' .* no image"),
        ({"red_fox": 4, "Red fox": 4}, "'Red fox', 'red_fox'"),
        ({"train/red_fox": 4, "test/red fox": 4}, "'red fox', 'red_fox'"),
        ({"a": 4, "_": 4}, "cannot name a class"),
    ],
)
def test_a_folder_that_makes_no_data_set_is_refused_by_name(
    tmp_path: Path, layout: dict[str, int], message: str
) -> None:
    for folder, count in layout.items():
        put(tmp_path / folder, count)
    with pytest.raises(LTGCError, match=message):
        prepare_dataset(section(tmp_path))


def test_a_missing_root_is_refused_by_key(tmp_path: Path) -> None:
    with pytest.raises(LTGCError, match=r"data\.root: .*gone"):
        prepare_dataset(section(tmp_path / "gone"))


def test_a_file_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 2)
    put(tmp_path / "test" / "a", 1)
    (tmp_path / "test" / "a" / "000.jpg").rename(str(tmp_path / "test" / "a" / "x\udcff.jpg"))
    with pytest.raises(LTGCError, match="not UTF-8"):
        prepare_dataset(section(tmp_path))


def test_any_folder_name_is_a_class_and_none_reaches_a_path_raw(tmp_path: Path) -> None:
    names = ['say "hi"', "<img src=x onerror=alert(1)>", "🌻", "a" * 255, "-rf", "a..b", "a,b\nc"]
    for name in names:
        put(tmp_path / "train" / name, 2)
        put(tmp_path / "test" / name, 1)
    dataset = prepare_dataset(section(tmp_path))
    assert {c.name for c in dataset.classes} == {*names[:-1], "a,b c"}
    for slug in (c.slug for c in dataset.classes):
        assert slug.isascii() and len(slug) < 50 and not set(slug) & set('/\\."<> ')


def test_the_embedded_source_says_so_when_it_was_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "embedded.wildflowers", None)
    (tmp_path / "species.yaml").touch()
    with pytest.raises(LTGCError, match="embedded/"):
        prepare_dataset(section(tmp_path, source="wildflowers"))


def test_a_root_of_ones_own_without_its_source_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(LTGCError, match=r"^data\.root: .* has no species\.yaml.* set data\.source too"):
        prepare_dataset(section(tmp_path, source="wildflowers"))


def test_images_are_in_the_shard_of_a_source_that_makes_them_and_else_where_they_are(tmp_path: Path) -> None:
    assert image_root(section(tmp_path, source="wildflowers")) == Path("data/images.tar")
    assert image_root(section(tmp_path)) == tmp_path
    assert image_root(section(tmp_path, images=Path("/photos"))) == Path("/photos")


def stage(folder: Path, root: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    """Run the real stage in `folder` on the class folders in `root`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["data"] |= {"source": "folder", "root": str(root)} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return subprocess.run(
        [warm_commands.python(), "-m", "stages.prepare"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )


def test_the_stage_writes_manifest_and_classes_or_leaves_the_last_ones_whole(tmp_path: Path) -> None:
    root = tmp_path / "photos of Zoë"
    put(root / "train" / "a", 25)
    put(root / "test" / "a", 2)
    assert stage(tmp_path, root).returncode == 0
    manifest = tmp_path / MANIFEST
    assert len(files.read_csv(manifest, ImageRecord)) == 27
    (only,) = files.read_csv(tmp_path / CLASSES, ClassRecord)
    assert (only.name, only.train, only.shot) == ("a", 25, "medium")
    assert shards.names(tmp_path / MADE_IMAGES) == []

    reasons = spoil(root)
    before = manifest.read_bytes()
    failed = stage(tmp_path, root)
    assert failed.returncode == 1
    assert "cut.jpg" in failed.stderr and "Traceback" not in failed.stderr
    assert manifest.read_bytes() == before
    whole = {"images.tar", "manifest.csv", "classes.csv", "findings.csv", "synonyms.csv", "licenses.csv"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == whole

    skipped = stage(tmp_path, root, on_bad_image="skip")
    assert skipped.returncode == 0
    assert "5 bad images left out" in skipped.stderr and "cut.jpg" in skipped.stderr
    findings = files.read_csv(tmp_path / FINDINGS, Finding)
    assert [f.path for f in findings if f.kind == "bad"] == list(reasons)


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="no real photos here")
def test_real_photos_become_an_exponential_long_tail() -> None:
    dataset = prepare_dataset(section(CLOTHING, long_tail={"head": 400, "ratio": 80}))
    by_size = sorted((c.train for c in dataset.classes), reverse=True)
    assert by_size == [400, 245, 151, 92, 57, 35, 21, 13, 8, 5]
    assert (sum(c.val for c in dataset.classes), sum(c.test for c in dataset.classes)) == (341, 372)
    assert [(f.path, f.reason) for f in dataset.findings] == [("LICENSE", "outside train/, val/ and test/")]


def test_many_images_are_checked_by_several_processes_with_the_same_result(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 2)
    put(tmp_path / "test" / "a", 1)
    reasons = spoil(tmp_path)
    (tmp_path / "train" / "a" / "huge.png").unlink()
    for copy in range(2 * IMAGES_PER_WORKER):
        shutil.copy(tmp_path / "train" / "a" / "000.jpg", tmp_path / "train" / "a" / f"c{copy}.jpg")
    dataset = prepare_dataset(section(tmp_path, on_bad_image="skip"))
    assert [file.path for file in dataset.findings] == [path for path in reasons if "huge" not in path]
    assert dataset.classes[0].train == 2 + 2 * IMAGES_PER_WORKER
