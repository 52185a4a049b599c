"""The CLIP filter: thresholds of the scorers, and one score an image however requests are gathered."""

import asyncio
import io

import numpy as np
import pytest
import torch
from helpers.training_world import load_tiny, save_clip
from PIL import Image

from ltgc.clip.detection import BATCH, REAL_IMAGES, Absolute, Filter, real_images
from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Score, Subject
from ltgc.data import images
from ltgc.pipeline.artifacts.dataset import ImageRecord
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.clip import FilterSettings

TEMPLATES = [
    "A photo of the class rose with red petals.",
    "A photo of the class fern with fronds.",
    "A photo of a sea.",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_tiny(save_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [png(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(40)]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def settings(scorer: str, threshold: float, offset: float = 0.5) -> FilterSettings:
    section = {
        "scorer": scorer,
        "threshold": threshold,
        "offset": offset,
        "max_refinements": 3,
        "text": "templates",
    }
    return FilterSettings.model_validate(section)


def cosines(clip: Clip, data: bytes) -> torch.Tensor:
    """(classes,) of one image, without batches."""
    return (clip.image_features(clip.preprocess(images.decode(data))[None]) @ clip.text_features(TEMPLATES).T)[0]


def calibrated(settings: FilterSettings, clip: Clip, real: dict[int, list[bytes]]) -> Filter[float]:
    scorer = absolute(settings, clip)

    async def measured() -> list[tuple[Subject, float]]:
        subjects = [(Subject(label), data) for label, own in real.items() for data in own]
        measures = await asyncio.gather(*(scorer.measure(subject, data) for subject, data in subjects))
        return [(subject, m) for (subject, _), m in zip(subjects, measures, strict=True)]

    scorer.calibrate(asyncio.run(measured()))
    return scorer


def absolute(settings: FilterSettings, clip: Clip) -> Filter[float]:
    return Filter(settings, clip, Absolute(settings, clip, TEMPLATES))


def score(scorer: Filter[float], label: int, data: bytes) -> tuple[float, float]:
    found = asyncio.run(scorer.score(Subject(label), data))
    assert found.score is not None and found.threshold is not None
    return found.score, found.threshold


def test_cosine_holds_s_against_mu_less_the_offset(clip, pictures):
    scorer = calibrated(settings("cosine", 0.8), clip, {0: [], 1: []})
    for label in (0, 1):
        s, threshold = score(scorer, label, pictures[0])
        assert s == pytest.approx(float(cosines(clip, pictures[0])[label]), abs=2e-6)
        assert threshold == 0.3


def test_probability_is_the_softmax_over_all_templates_at_clips_temperature(clip, pictures):
    scorer = calibrated(settings("probability", 0.4), clip, {0: [], 1: [], 2: []})
    expected = (cosines(clip, pictures[0]) * clip.logit_scale).softmax(0)
    found = [score(scorer, label, pictures[0]) for label in range(3)]
    assert [s for s, _ in found] == pytest.approx(expected.tolist(), abs=2e-5)
    assert sum(s for s, _ in found) == pytest.approx(1, abs=1e-5)
    assert {threshold for _, threshold in found} == {0.4}


def test_percentile_is_interpolated_between_the_scores_of_the_real_images_of_the_class(clip, pictures):
    scorer = calibrated(settings("percentile", 10), clip, {0: pictures[:4], 1: pictures[4:5]})
    lowest, second = sorted(score(scorer, 0, data)[0] for data in pictures[:4])[:2]
    assert score(scorer, 0, pictures[9])[1] == pytest.approx(lowest + 0.3 * (second - lowest), abs=1e-6)
    only, threshold = score(scorer, 1, pictures[4])
    assert only == threshold  # a real image is never worse than the only one there is


def test_percentile_without_a_real_image_is_an_error(clip):
    scorer = calibrated(settings("percentile", 10), clip, {1: []})
    with pytest.raises(LTGCError, match="class 1 has no real image"):
        score(scorer, 1, png(np.zeros((8, 8, 3), dtype=np.uint8)))


def test_an_image_scores_the_same_bits_wherever_it_sits_in_a_batch_and_whatever_sits_beside_it(clip, pictures):
    size = BATCH["cpu"]
    features = []
    for place in range(size):
        batch = torch.stack([clip.preprocess(images.decode(data)) for data in pictures[1 : 1 + size]])
        batch[place] = clip.preprocess(images.decode(pictures[0]))
        features += [
            clip.image_features(batch)[place],
            clip.image_features(batch.where(batch == batch[place], 0.0))[place],
        ]
    assert all(torch.equal(feature, features[0]) for feature in features)


def test_scores_of_concurrent_graphs_do_not_depend_on_how_they_were_gathered(clip, pictures):
    scorer = calibrated(settings("cosine", 0.8), clip, {0: [], 1: []})
    labels = [i % 2 for i in range(len(pictures))]
    alone = [score(scorer, label, data)[0] for label, data in zip(labels, pictures, strict=True)]

    async def together(order: list[int]) -> dict[int, float]:
        scores = await asyncio.gather(*(scorer.score(Subject(labels[i]), pictures[i]) for i in order))
        return {i: found.score for i, found in zip(order, scores, strict=True)}

    for order in (list(range(40)), list(reversed(range(40))), list(range(39, 2, -3))):
        found = asyncio.run(together(order))
        assert found == {i: alone[i] for i in order}


def test_clip_sees_batches_of_one_size_only_and_concurrent_graphs_share_them(clip, pictures):
    shapes = []

    class Watched(Clip):
        def image_features(self, images):
            shapes.append(tuple(images.shape))
            return super().image_features(images)

    watched = Watched(clip.model, clip.preprocess, clip.tokenize, clip.device)
    scorer = calibrated(settings("cosine", 0.8).model_copy(update={"wait": 1.0}), watched, {0: []})

    async def all_at_once():
        await asyncio.gather(*(scorer.score(Subject(0), data) for data in pictures[:32]))

    asyncio.run(all_at_once())
    calibrated(settings("cosine", 0.8), watched, {0: pictures[:1]})
    assert shapes == [(BATCH["cpu"], 3, 16, 16)] * 3


def test_an_image_that_cannot_be_read_fails_its_own_graph_and_no_other(clip, pictures):
    scorer = calibrated(settings("cosine", 0.8), clip, {0: []})

    async def at_once():
        return await asyncio.gather(
            scorer.score(Subject(0), b"no image"), scorer.score(Subject(0), pictures[0]), return_exceptions=True
        )

    bad, good = asyncio.run(at_once())
    assert isinstance(bad, images.BadImage)
    assert isinstance(good, Score) and good.threshold == 0.3


def test_a_real_image_that_is_bad_or_missing_is_named(clip, tmp_path):
    scorer = absolute(settings("cosine", 0.8), clip)
    (tmp_path / "bad.png").write_bytes(b"no image")
    for name, reason in (("bad.png", "not an image"), ("gone.png", "not there")):
        with pytest.raises(LTGCError, match=f"{name}: {reason}"):
            asyncio.run(scorer.measure(Subject(0), tmp_path / name))


def test_a_score_that_is_not_a_number_is_an_error(tmp_path, pictures):
    broken = load_tiny(save_clip(tmp_path / "clip"))
    broken.model.visual.proj.fill_(float("nan"))
    scorer = absolute(settings("cosine", 0.8), broken)
    with pytest.raises(LTGCError, match=r"clip\.model: the score of an image is not a number"):
        asyncio.run(scorer.measure(Subject(0), pictures[0]))


def test_real_images_are_those_of_the_training_split_and_bounded_and_spread_over_each_class():
    def image(label: int, number: int, split: str = "train") -> ImageRecord:
        fields = {"path": f"{label}-{number}", "label": label, "class_name": "a", "split": split, "hash": "00"}
        return ImageRecord.model_validate(fields)

    manifest = [image(1, i) for i in range(3)] + [image(0, i) for i in range(4 * REAL_IMAGES)]
    manifest += [image(2, 0), image(1, 9, "test")]
    found = [record.path for record in real_images(manifest, {0, 1, 3})]
    assert found == [f"0-{4 * i}" for i in range(REAL_IMAGES)] + ["1-0", "1-1", "1-2"]
