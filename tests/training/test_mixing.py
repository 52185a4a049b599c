"""Samplers, λ and mixing: what a batch is made of (§3.2, Eq. 3 and 4)."""

import pytest
import torch

from ltgc.training import mixing, samplers

LABELS = torch.tensor([3, 0, 0, 0, 0, 0, 0, 3, 5])  # classes 1, 2 and 4 have no images
PHOTOS = torch.zeros(len(LABELS), dtype=torch.bool)  # none is a drawing


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_plain_sampling_draws_every_image_once_an_epoch_in_a_new_order() -> None:
    drawn = samplers.UNIFORM.sample(LABELS, PHOTOS, 23)
    assert drawn.shape == (23,)
    first, second, rest = drawn.split(len(LABELS))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(len(LABELS)))
    assert first.tolist() != second.tolist()
    assert len(rest.unique()) == len(rest) == 5


def test_class_balanced_sampling_is_uniform_over_classes_and_within_each() -> None:
    drawn = samplers.CLASS_BALANCED.sample(LABELS, PHOTOS, 60_000)
    counts = torch.bincount(drawn, minlength=len(LABELS)).double()
    by_class = torch.zeros(6, dtype=torch.float64).index_add(0, LABELS, counts)
    expected = torch.tensor([20_000, 0, 0, 20_000, 0, 20_000], dtype=torch.float64)
    torch.testing.assert_close(by_class, expected, rtol=0, atol=600)  # 5 standard deviations
    expected = torch.tensor([10_000, *[20_000 / 6] * 6, 10_000, 20_000], dtype=torch.float64)
    torch.testing.assert_close(counts, expected, rtol=0, atol=600)


@pytest.mark.parametrize("sampler", [samplers.UNIFORM, samplers.CLASS_BALANCED])
def test_a_stream_is_a_function_of_the_seed(sampler) -> None:
    streams = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        streams.append(sampler.sample(LABELS, PHOTOS, 50).tolist())
    assert streams[0] == streams[1] != streams[2]


def test_lambda_follows_its_beta_distribution_one_a_sample() -> None:
    lam = mixing.sample_lambda((2.0, 6.0), (300, 100))
    assert lam.shape == (300, 100) and lam.dtype == torch.float32
    assert lam.min() >= 0 and lam.max() <= 1
    assert len(lam[0].unique()) == 100
    assert lam.mean().item() == pytest.approx(2 / 8, abs=0.005)
    assert lam.var().item() == pytest.approx(2 * 6 / (8**2 * 9), abs=0.002)


def test_images_and_labels_are_mixed_with_the_same_lambda() -> None:
    x_i, x_j = torch.full((2, 3, 4, 4), 200.0), torch.full((2, 3, 4, 4), 100.0)
    lam = torch.tensor([0.25, 1.0])
    mixed = mixing.mix(x_i, x_j, lam)
    assert mixed[0].unique().tolist() == [125.0]  # 0.25 * 200 + 0.75 * 100
    assert torch.equal(mixed[1], x_i[1])
    targets = mixing.mix_labels(torch.tensor([2, 0]), torch.tensor([1, 1]), lam, classes=4)
    assert targets.tolist() == [[0, 0.75, 0.25, 0], [1, 0, 0, 0]]


def test_soft_targets_sum_to_one_also_for_two_images_of_a_class() -> None:
    y_i, y_j = torch.randint(5, (2, 1000))
    lam = mixing.sample_lambda((1.0, 1.0), (1000,))
    targets = mixing.mix_labels(y_i, y_j, lam, classes=5)
    torch.testing.assert_close(targets.sum(1), torch.ones(1000))
    same = y_i == y_j
    torch.testing.assert_close(targets[same].amax(1), torch.ones(int(same.sum())))
    torch.testing.assert_close(targets[~same].gather(1, y_i[~same, None])[:, 0], lam[~same], rtol=0, atol=0)


def test_cutmix_puts_one_box_of_x_j_into_x_i_and_its_lambda_is_the_share_of_pixels_left() -> None:
    a, b = torch.full((500, 3, 16, 20), 7.0), torch.full((500, 3, 16, 20), 9.0)
    lam, corner = torch.rand(500), torch.rand(500, 2)
    mixed, share = mixing.cut(a, b, lam, corner)
    boxes = mixed[:, 0] == 9.0  # (500, 16, 20)
    assert torch.equal(mixed, torch.where(boxes[:, None], b, a))
    torch.testing.assert_close(share, 1 - boxes.float().mean((1, 2)))
    # A box: whole rows times whole columns, of the image's shape, nowhere cut off.
    rows, columns = boxes.any(2), boxes.any(1)
    assert torch.equal(boxes, rows[:, :, None] & columns[:, None, :])
    side = (1 - lam).sqrt()
    assert ((rows.sum(1) - 16 * side).abs() <= 1).all() and ((columns.sum(1) - 20 * side).abs() <= 1).all()
    assert ((rows.int().diff(dim=1) == 1).sum(1) <= 1).all()  # in one piece
    assert (rows[:, 0].any(), rows[:, -1].any(), rows[:, 0].all()) == (True, True, False)  # in any place


def test_cutmix_at_the_ends_of_lambda_is_one_image_whole() -> None:
    a, b = torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    mixed, share = mixing.cut(a, b, torch.tensor([1.0, 0.0]), torch.tensor([[0.4, 0.9], [0.4, 0.9]]))
    assert torch.equal(mixed, torch.stack([a[0], b[1]]))
    assert share.tolist() == [1, 0]


def test_labels_are_weighted_before_they_are_mixed() -> None:
    lam, weight = torch.tensor([0.25, 0.5]), torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    targets = mixing.mix_labels(torch.tensor([2, 0]), torch.tensor([1, 0]), lam, 3, weight)
    assert targets.tolist() == [[0, 0.375, 0.25], [0.5, 0, 0]]
