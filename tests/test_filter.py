"""The CLIP filter: three scorers, one score an image however requests are gathered."""

import asyncio
import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import load_clip, save_clip

from ltgc import images, params
from ltgc.clip import Clip
from ltgc.errors import LTGCError
from ltgc.filter import BATCH, Filter

TEMPLATES = [
    "A photo of the class rose with red petals.",
    "A photo of the class fern with fronds.",
    "A photo of a sea.",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [png(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(40)]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def settings(scorer: str, threshold: float, offset: float = 0.5) -> params.Filter:
    section = {"scorer": scorer, "threshold": threshold, "offset": offset, "max_refinements": 3}
    return params.Filter.model_validate(section)


def cosines(clip: Clip, data: bytes) -> torch.Tensor:
    """(classes,) of one image, without batches."""
    return (clip.image_features(clip.preprocess(images.decode(data))[None]) @ clip.text_features(TEMPLATES).T)[0]


def score(scorer: Filter, label: int, data: bytes) -> tuple[float, float]:
    return asyncio.run(scorer.score(label, data))


def test_cosine_holds_s_against_mu_less_the_offset(clip, pictures):
    scorer = Filter(settings("cosine", 0.8), clip, TEMPLATES, {0: [], 1: []})
    for label in (0, 1):
        s, threshold = score(scorer, label, pictures[0])
        assert s == pytest.approx(float(cosines(clip, pictures[0])[label]), abs=2e-6)
        assert threshold == 0.3


def test_probability_is_the_softmax_over_all_templates_at_clips_temperature(clip, pictures):
    scorer = Filter(settings("probability", 0.4), clip, TEMPLATES, {0: [], 1: [], 2: []})
    expected = (cosines(clip, pictures[0]) * clip.logit_scale).softmax(0)
    found = [score(scorer, label, pictures[0]) for label in range(3)]
    assert [s for s, _ in found] == pytest.approx(expected.tolist(), abs=2e-5)
    assert sum(s for s, _ in found) == pytest.approx(1, abs=1e-5)
    assert {threshold for _, threshold in found} == {0.4}


def test_percentile_is_interpolated_between_the_scores_of_the_real_images_of_the_class(clip, pictures):
    real = {0: pictures[:4], 1: pictures[4:5]}
    scorer = Filter(settings("percentile", 10), clip, TEMPLATES, real)
    lowest, second = sorted(scorer.scores([0] * 4, real[0]))[:2]
    assert score(scorer, 0, pictures[9])[1] == pytest.approx(lowest + 0.3 * (second - lowest), abs=1e-6)
    only, threshold = score(scorer, 1, pictures[4])
    assert only == threshold  # a real image is never worse than the only one there is


def test_percentile_without_a_real_image_is_an_error(clip):
    with pytest.raises(LTGCError, match="class 1 has no real image"):
        Filter(settings("percentile", 10), clip, TEMPLATES, {1: []})


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
    scorer = Filter(settings("cosine", 0.8), clip, TEMPLATES, {0: [], 1: []})
    labels = [i % 2 for i in range(len(pictures))]
    alone = [score(scorer, label, data)[0] for label, data in zip(labels, pictures, strict=True)]

    async def together(order: list[int]) -> dict[int, float]:
        scores = await asyncio.gather(*(scorer.score(labels[i], pictures[i]) for i in order))
        return {i: s for i, (s, _) in zip(order, scores, strict=True)}

    for order in (list(range(40)), list(reversed(range(40))), list(range(39, 2, -3))):
        found = asyncio.run(together(order))
        assert found == {i: alone[i] for i in order}


def test_clip_sees_batches_of_one_size_only(clip, pictures):
    shapes = set()

    class Watched(Clip):
        def image_features(self, images):
            shapes.add(tuple(images.shape))
            return super().image_features(images)

    watched = Watched(clip.model, clip.preprocess, clip.tokenize, clip.device)
    scorer = Filter(settings("percentile", 10), watched, TEMPLATES, {0: pictures[:4]})
    scorer.scores([0] * 20, pictures[:20])
    score(scorer, 0, pictures[0])
    assert shapes == {(BATCH["cpu"], 3, 16, 16)}


def test_requests_of_concurrent_graphs_share_batches(clip, pictures):
    batches = []

    class Counting(Filter):
        def _batch(self, labels, encoded):
            batches.append(len(labels))
            return super()._batch(labels, encoded)

    scorer = Counting(settings("cosine", 0.8), clip, TEMPLATES, {0: []})

    async def all_at_once():
        await asyncio.gather(*(scorer.score(0, data) for data in pictures))

    asyncio.run(all_at_once())
    assert sum(batches) == 40 and len(batches) <= 4


def test_an_image_that_cannot_be_read_fails_its_own_graph_and_no_later_one(clip, pictures):
    scorer = Filter(settings("cosine", 0.8), clip, TEMPLATES, {0: []})

    async def one_after_the_other():
        with pytest.raises(images.BadImage):
            await scorer.score(0, b"no image")
        return await scorer.score(0, pictures[0])

    assert asyncio.run(one_after_the_other())[1] == 0.3
