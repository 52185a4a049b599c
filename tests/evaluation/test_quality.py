"""Quality of the generated set: diversity, distance to the originals, drawings that are nearly test images."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import training_world
from helpers.photo_folders import list_again
from PIL import Image, ImageFilter

from ltgc.evaluation import quality
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import MANIFEST, ImageRecord
from ltgc.pipeline.artifacts.drawings import (
    ATTEMPTS,
    CLASS_QUALITY,
    CONTAMINATED,
    DROPPED,
    Attempt,
    ClassQuality,
    Contamination,
)
from ltgc.pipeline.artifacts.results import QUALITY
from ltgc.pipeline.artifacts.runs import MODELS
from ltgc.pipeline.errors import LTGCError
from stages import quality as stage


def unit(*rows: tuple[float, ...]) -> quality.Features:
    features = np.array(rows, np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_diversity_is_the_mean_cosine_distance_over_all_pairs() -> None:
    features = unit((1, 0), (0, 1), (1, 1))
    assert quality.diversity(features) == pytest.approx((1 + 2 * (1 - 0.5**0.5)) / 3)
    assert quality.diversity(unit((1, 2), (1, 2))) == pytest.approx(0, abs=1e-6)
    assert quality.diversity(unit((1, 0))) is None


def test_the_domain_gap_is_the_unbiased_cmmd() -> None:
    x, y = unit((1, 0), (0, 1)), unit((-1, 0), (0, -1))
    near, far = np.exp(-2 / 200), np.exp(-4 / 200)  # kernels at squared distances 2 and 4, σ = 10
    expected = 1000 * (near + near - 2 * (2 * far + 2 * near) / 4)
    assert quality.domain_gap(x, y) == pytest.approx(expected)
    assert quality.domain_gap(x, y[:1]) is None


def test_samples_of_one_distribution_have_no_gap_and_moved_ones_have() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(300, 8)) + 1 for _ in range(2)]
    same, moved = (unit(*draws[1]), unit(*draws[1] + np.eye(8)[0] * 2))
    gap = quality.domain_gap(unit(*draws[0]), same)
    assert gap is not None and abs(gap) < 0.1
    assert (quality.domain_gap(unit(*draws[0]), moved) or 0) > 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with some structure, unlike tiny's noise; two drawings are copies of test images, one blurred."""
    root = tmp_path_factory.mktemp("world")
    training_world.world(root, training_world.save_clip(root / "clip"))
    rng = np.random.default_rng(0)
    manifest = files.read_csv(root / MANIFEST, ImageRecord)
    attempts = files.read_jsonl(root / ATTEMPTS, Attempt)
    for path in [root / "photos" / image.path for image in manifest] + [root / (a.image or "") for a in attempts]:
        noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        noise.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    list_again(root / MANIFEST, root / "photos")
    test = [root / "photos" / image.path for image in manifest if image.split == "test"]
    copy, brighter = [root / (a.image or "") for a in attempts if a.verdict == "accepted"][:2]
    copy.write_bytes(test[0].read_bytes())
    Image.open(test[1]).filter(ImageFilter.GaussianBlur(0.7)).point(lambda value: value * 0.95).save(brighter)
    return root


def run(world: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> dict[str, object]:
    monkeypatch.chdir(world)
    params = yaml.safe_load((world / "params.yaml").read_text())
    params["quality"] |= {"drop_contaminated": False} | settings
    (world / "params.yaml").write_text(yaml.safe_dump(params))
    stage.main()
    return json.loads((world / QUALITY).read_text())


def test_copies_of_test_images_are_listed_with_their_twins(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run(world, monkeypatch)
    manifest = files.read_csv(MANIFEST, ImageRecord)
    test = [image.path for image in manifest if image.split == "test"]
    found = files.read_csv(CONTAMINATED, Contamination)
    assert [f.test for f in found] == test[:2]
    assert found[0].distance == 0 and found[0].cosine == pytest.approx(1, abs=1e-4)
    assert found[0].class_name == training_world.NAMES[2] and found[0].test_class == training_world.NAMES[0]
    assert summary["contaminated"] == {"found": 2, "dropped": 0}
    assert files.read_csv(DROPPED, Contamination) == []


def test_clip_has_to_agree_with_the_hash(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(world, monkeypatch, duplicate_distance=64, duplicate_cosine=0.99995)
    assert len(files.read_csv(CONTAMINATED, Contamination)) == 1  # the exact copy


def test_contaminated_images_are_left_out_of_training_where_params_say_so(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import train

    run(world, monkeypatch, duplicate_distance=4, duplicate_cosine=0.95, drop_contaminated=True)
    dropped = files.read_csv(DROPPED, Contamination)
    assert len(dropped) == 2
    train.main("balanced_sample", "0")
    trained = json.loads((MODELS / "balanced_sample" / "0" / "run.json").read_text())
    assert trained["generated"] == training_world.COUNTS[2][3] - 2


def test_each_class_with_generated_images_is_measured(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run(world, monkeypatch)
    (row,) = files.read_jsonl(CLASS_QUALITY, ClassQuality)
    assert (row.label, row.original, row.generated) == (2, 4, 6)
    assert row.diversity_original and row.diversity_generated and row.gap_validation is not None
    assert summary["diversity"] == {"original": row.diversity_original, "generated": row.diversity_generated}
    before = CLASS_QUALITY.read_bytes()
    run(world, monkeypatch)
    assert CLASS_QUALITY.read_bytes() == before


def test_without_generated_images_there_is_nothing_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_world.world(tmp_path, "local-dir:none", generated=False)  # CLIP is not even loaded
    summary = run(tmp_path, monkeypatch)
    assert summary["classes"] == 0 and summary["diversity"] == {"original": None, "generated": None}
    assert files.read_csv(DROPPED, Contamination) == []


def test_an_image_that_cannot_be_read_is_named(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    test = next(i for i in files.read_csv(MANIFEST, ImageRecord) if i.split == "test")
    path = world / "photos" / test.path
    photo, manifest = path.read_bytes(), MANIFEST.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(LTGCError, match=rf"{test.path}: not the image that data/manifest.csv lists"):
        stage.main()
    list_again(MANIFEST, world / "photos")
    with pytest.raises(LTGCError, match=rf"{test.path}: empty"):
        stage.main()
    path.write_bytes(photo)
    MANIFEST.write_bytes(manifest)
