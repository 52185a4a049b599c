"""Methods of several phases: what each freezes, samples and reads, by the parts that its paper names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.training_world import load_tiny

from ltgc.data.roots import image_root
from ltgc.pipeline import params
from ltgc.pipeline.settings.training import Method
from ltgc.training.inputs import Inputs
from ltgc.training.methods import METHODS
from ltgc.training.phases import Start, TrainingPhase
from ltgc.training.plan import TrainingSet
from ltgc.training.systems import SYSTEMS, lpt


class Watched:
    """The phases of one run in the small world: each is seen before and after it is trained."""

    def __init__(self, method: Method) -> None:
        from ltgc.training.fit import _initial_classifier
        from ltgc.training.loop import train

        section = params.load("data.source", "data.root", "data.images", "clip", "train")
        settings = section.train.of(method)
        torch.manual_seed(0)
        self.clip = load_tiny(section.clip.model)
        inputs = Inputs(self.clip, image_root(section.data))
        images = inputs.photos("train") + inputs.drawings(settings.generated)
        data = TrainingSet(*inputs.load(images), original=len(inputs.photos("train")))
        self.classifier = _initial_classifier(METHODS[method], settings, inputs)
        self.start = Start(METHODS[method], settings, inputs, images, data, self.classifier)
        self.phases: list[TrainingPhase] = []
        self.learned: list[set[str]] = []  # of each phase, the weights that it changed
        for phase in SYSTEMS[method](self.start):
            before = {name: value.clone() for name, value in phase.network.state_dict().items()}
            train(phase.network, phase.plan, data, phase.settings, objective=phase.objective)
            after = phase.network.state_dict()
            self.learned.append({n.removeprefix("classifier.") for n in before if not before[n].equal(after[n])})
            self.phases.append(phase)


@pytest.fixture
def world(in_world: Callable[..., Path]) -> Path:
    return in_world(steps=4, batch_size=6, lr=0.01)


def test_lpt_learns_shared_prompts_then_group_prompts_in_a_frozen_encoder(world: Path) -> None:
    run = Watched("lpt")
    assert run.learned == [{"head", "visual.shared"}, {"head", "visual.group", "visual.keys"}]
    assert [phase.settings.steps for phase in run.phases] == [4, 4]
    visual = run.classifier.visual
    assert visual.shared.shape == (2, 10, 32)  # each block; the later half of them reads group prompts
    assert visual.group.shape == (20, 1, 10, 32) and visual.keys.shape == (20, 32)


def test_lpt_reads_the_group_prompts_whose_keys_are_nearest_to_the_image(world: Path) -> None:
    visual = Watched("lpt").classifier.visual
    images = torch.randn(5, 3, 16, 16)
    query = torch.randn(32)
    with torch.no_grad():
        visual.keys.copy_(torch.randn(20, 32))
        group = visual.group
        visual.group = None
        unmatched = visual(images)
        tokens = visual._read(visual.visual._embeds(images), range(2))
        query = F.normalize(visual._pooled(tokens), dim=-1)  # after the shared prompts alone
        visual.group = group
        cosines = query @ F.normalize(visual.keys, dim=-1).T
        nearest = cosines.topk(2).indices
        features, near = visual.encode(images)
        torch.testing.assert_close(near, cosines.gather(1, nearest).sum(1))
        assert (features - unmatched).abs().max() > 1e-5
        for image in range(5):
            others = [k for k in range(20) if k not in nearest[image]]
            kept = group[others].clone()
            group[others] = torch.randn_like(kept)
            torch.testing.assert_close(visual(images)[image], features[image])
            group[others] = kept


def test_lpt_samples_in_pairs_a_balanced_image_and_one_as_images_come_that_counts_less_and_less(
    world: Path,
) -> None:
    plan = Watched("lpt").phases[1].plan
    assert plan.i.shape == (4, 12) and plan.weight is not None and plan.source is not None
    assert plan.source.unique().tolist() == [0, 1]
    torch.testing.assert_close(plan.weight[:, 1::2, 0], 0.5 * (1 - torch.arange(4.0) / 4)[:, None].expand(4, 6))
    assert (plan.weight[:, 0::2] == 1).all()
    run = Watched("lpt")
    many = lpt.dual_plan(run.start, plan._map(lambda t: t[:, :6].repeat(200, *[1] * (t.dim() - 1))))
    labels = run.start.data.labels[many.i]
    shares = [labels[many.source == k].bincount() / (labels.numel() / 2) for k in (0, 1)]
    torch.testing.assert_close(shares[0], torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    torch.testing.assert_close(shares[1], torch.tensor([102, 20, 4]) / 126, rtol=0, atol=0.01)
