"""Methods of several phases: what each freezes, samples and reads, by what its paper calls its parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.training_world import COUNTS, NAMES, descriptions, load_tiny

from ltgc.classifier.network import load_classifier
from ltgc.classifier.prompts import Prompted
from ltgc.classifier.sentences import Sentences
from ltgc.clip.encoder import Clip
from ltgc.data.roots import image_root
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import class_slug
from ltgc.pipeline.artifacts.runs import Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import Method
from ltgc.training import checkpoint
from ltgc.training.fit import initial_classifier
from ltgc.training.inputs import Inputs
from ltgc.training.loop import train
from ltgc.training.methods import METHODS
from ltgc.training.phases import Setup, TrainingPhase
from ltgc.training.plan import TrainingSet
from ltgc.training.systems import SYSTEMS, lpt, rac, vl_ltr
from stages.evaluate import main as evaluate_stage
from stages.train import main as train_stage

PHOTO = f"{class_slug(2, NAMES[2])}/train-0.png"  # the photo that an existing description is of
IMAGES = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class TrainedInPhases:
    """One run in the small world, and which weights each phase changed."""

    def __init__(self, method: Method) -> None:
        section = params.load("data.source", "data.root", "data.images", "clip", "train")
        settings = section.train.of(method)
        torch.manual_seed(0)
        self.clip = load_tiny(section.clip.model)
        inputs = Inputs(self.clip, image_root(section.data))
        photos = inputs.photos("train")
        images = photos + (inputs.drawings(settings.generated) if method.startswith("ltgc") else [])
        data = TrainingSet(*inputs.load(images), original=len(photos))
        self.classifier = initial_classifier(METHODS[method], settings, inputs)
        self.setup = Setup(METHODS[method], settings, inputs, images, data, self.classifier)
        self.phases: list[TrainingPhase] = []
        self.learned: list[set[str]] = []
        for phase in SYSTEMS[method](self.setup):
            before = {name: value.clone() for name, value in phase.network.state_dict().items()}
            train(phase.network, phase.plan, data, phase.settings, objective=phase.objective)
            after = phase.network.state_dict()
            self.learned.append({n.removeprefix("classifier.") for n in before if not before[n].equal(after[n])})
            self.phases.append(phase)


@pytest.fixture
def root(in_world: Callable[..., Path]) -> Path:
    root = in_world(steps=4, batch_size=6, lr=0.01, checkpoint_steps=1)
    extended = ["a blue bell by a pond", "bells", "bells in the rain"]
    descriptions(root, [(2, "blue bells in snow", True)], extended, photo=PHOTO)
    return root


@pytest.mark.parametrize(
    ("method", "file"),
    [("ltgc_lpt", "prompts"), ("ltgc_vl_ltr", "sentences"), ("ltgc_rac", "memory")],
)
def test_a_run_is_evaluated_from_its_files_and_goes_on_from_its_last_phase(
    method: Method, file: str, root: Path, model: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, killed = checkpoint.write, []

    def write_and_stop(path: Path, key: str, tensors: Any, state: dict[str, Any]) -> None:
        write(path, key, tensors, state)
        if method == "ltgc_rac" or path.name == "0.1.safetensors":
            killed.append(state["step"])
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_stage(method, "0")
    taken: list[int] = []
    monkeypatch.setattr(checkpoint, "write", lambda path, key, tensors, state: taken.append(state["step"]))
    train_stage(method, "0")
    saved = root / f"models/{method}/0"
    assert (saved / f"{file}.safetensors").exists()
    assert min(taken) > 1  # no phase has begun again
    resumed = load_classifier(saved, model)(IMAGES)
    if method == "ltgc_lpt":  # shared prompts, group prompts and their keys, and the head
        trained = files.read_record(saved / "run.json", Run).trained_parameters
        assert trained == (2 + 20) * 10 * 32 + 20 * 32 + 3 * 24

    monkeypatch.undo()
    monkeypatch.chdir(root)
    (saved / "run.json").unlink()
    train_stage(method, "0")
    assert not list((root / f".checkpoints/{method}").iterdir())
    torch.testing.assert_close(load_classifier(saved, model)(IMAGES), resumed, rtol=0, atol=1e-5)
    train_stage(method, "1")
    evaluate_stage(method)
    assert (root / f"metrics/runs/{method}/0.json").exists()


# --- LPT ------------------------------------------------------------------------------------------------


def test_lpt_learns_shared_prompts_and_then_group_prompts_in_a_frozen_encoder(root: Path) -> None:
    run = TrainedInPhases("lpt")
    assert run.learned == [{"head", "visual.shared"}, {"head", "visual.group", "visual.keys"}]
    visual = run.classifier.visual
    assert visual.shared.shape == (2, 10, 32)  # each block; the later half of them reads group prompts
    assert visual.group.shape == (20, 1, 10, 32) and visual.keys.shape == (20, 32)

    # Pairs of an image of a class-balanced batch and one as images come, which counts less and less.
    plan = run.phases[1].plan
    assert plan.i.shape == (4, 12) and plan.weight is not None and (plan.weight[:, 0::2] == 1).all()
    falling = 0.5 * (1 - torch.arange(4) / 4)
    torch.testing.assert_close(plan.weight[:, 1::2, 0], falling[:, None].expand(4, 6))
    plan = lpt.dual_plan(run.setup, run.setup.settings.model_copy(update={"steps": 400}))
    assert plan.source is not None
    labels = run.setup.data.labels[plan.i]
    balanced, plain = (labels[plan.source == k].bincount() / (400 * 6) for k in (0, 1))
    torch.testing.assert_close(balanced, torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    torch.testing.assert_close(plain, torch.tensor([102, 20, 4]) / 126, rtol=0, atol=0.01)


def test_lpt_reads_the_group_prompts_whose_keys_are_nearest_to_the_image(model: Clip) -> None:
    visual = Prompted(model.model.visual, length=3)
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        query = F.normalize(visual._pooled(visual._read(visual.visual._embeds(images), range(2))), dim=-1)
        visual.add_groups(pool=8, matched=2)
        assert visual.group is not None and visual.keys is not None
        visual.keys.copy_(torch.randn(8, 32))
        cosines = query @ F.normalize(visual.keys, dim=-1).T
        features, near = visual.encode(images)
        torch.testing.assert_close(near, cosines.topk(2).values.sum(1))
        for image, nearest in enumerate(cosines.topk(2).indices.tolist()):
            for k in range(8):
                kept = visual.group[k].clone()
                visual.group[k] = torch.randn_like(kept)
                changed = (visual(images)[image] - features[image]).abs().max() > 1e-5
                assert changed == (k in nearest)
                visual.group[k] = kept


def test_lpts_loss_clouds_rare_classes_most_and_forgives_confident_negatives_least() -> None:
    loss = lpt.CloudedLogits(torch.tensor([0.0, 0.5, 1.0]), scale=20.0, positive=0.0, negative=4.0)
    logits, labels = torch.zeros(4000, 3), torch.zeros(4000, dtype=torch.int64)
    torch.manual_seed(0)
    common, rare = (loss(logits, labels + label).mean() for label in (0, 2))
    assert rare > common + 1
    unclouded = lpt.CloudedLogits(torch.zeros(3), scale=20.0, positive=0.0, negative=4.0)
    p = torch.tensor([-2.0, 0.0, 0.0]).softmax(0)  # the label's cosine has lost the margin of 0.1
    smoothed = torch.tensor([0.9, 0.0, 0.0]) + 0.1 / 3
    focus = torch.tensor([1.0, p[1] ** 4, p[2] ** 4])
    torch.testing.assert_close(unclouded(logits[:1], labels[:1])[0], -(smoothed * focus * p.log()).sum())


def test_lpt_without_prompts_is_refused(root: Path) -> None:
    text = (root / "params.yaml").read_text().replace("tuning: prompts", "tuning: lora")
    (root / "params.yaml").write_text(text)
    with pytest.raises(LTGCError, match=r"train\.own\.lpt\.tuning"):
        train_stage("lpt", "0")


# --- VL-LTR ---------------------------------------------------------------------------------------------


def test_vl_ltr_trains_both_encoders_and_then_the_head_and_its_attention_to_the_sentences(root: Path) -> None:
    run = TrainedInPhases("vl_ltr")
    first, second = run.learned
    assert any(name.startswith("text.transformer") for name in first) and "text.logit_scale" not in first
    assert any(name.startswith("visual.") for name in first) and "head" not in first
    assert second == {
        "head",
        *(f"branch.{name}.weight" for name in ("query", "key", "norm_image", "norm_sentence")),
        *(f"branch.{name}.bias" for name in ("norm_image", "norm_sentence")),
    }
    branch = run.classifier.branch
    assert isinstance(branch, Sentences)
    assert (~branch.missing).sum(1).tolist() == [1, 1, 5]  # the template, and of class 2 four descriptions
    with torch.no_grad():
        features = run.classifier.features(IMAGES)
        both = [run.classifier.logits(features), branch.sentence_logits(features)]
        expected = 0.2 * both[0].softmax(-1) + 0.8 * both[1].softmax(-1)
        torch.testing.assert_close(run.classifier(IMAGES).softmax(-1), expected)
        # What a class has no sentence for is not read.
        branch.anchors[0, 1:] = 7.0
        torch.testing.assert_close(branch.sentence_logits(features), both[1])


def test_vl_ltr_keeps_the_sentences_that_find_the_images_of_their_class() -> None:
    images = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [-0.1, 1.0]]), dim=-1)
    texts = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    found = vl_ltr.scores(texts, torch.zeros(3, dtype=torch.int64), images, torch.tensor([0, 0, 1]), 10.0)
    assert found.argsort().tolist() == [1, 2, 0]


def test_vl_ltrs_contrast_takes_all_sentences_of_a_class_as_right() -> None:
    labels = torch.tensor([0, 0, 1])
    right = torch.where(labels[:, None] == labels, 30.0, 0.0)
    alone = torch.eye(3) * 30
    neutral = torch.zeros(3, 3)
    assert vl_ltr.contrastive(right, labels, right) < vl_ltr.contrastive(alone, labels, right)
    assert vl_ltr.contrastive(right, labels, right) < vl_ltr.contrastive(right, labels, neutral)


# --- RAC ------------------------------------------------------------------------------------------------


def test_rac_adds_logits_of_the_texts_of_the_nearest_images_and_descriptions(root: Path) -> None:
    run = TrainedInPhases("rac")
    setup, memory = run.setup, run.classifier.branch
    assert len(run.learned) == 1 and "head" in run.learned[0]
    assert {n.split(".")[1] for n in run.learned[0] if n.startswith("branch.")} == {"head", "rank", "reader"}
    assert isinstance(memory, rac.Memory) and len(memory.images) == 126  # photos alone
    templates = [f"A photo of the class {name} with petal number {label}" for label, name in enumerate(NAMES)]
    described = sorted(["blue bells in snow", "a blue bell by a pond", "bells", "bells in the rain"])
    torch.testing.assert_close(memory.texts, run.clip.text_features([*templates, *described]))

    query = run.clip.image_features(run.clip.normalise(IMAGES))
    retrieved = memory.nearest(query)
    images = memory.labels[(query @ memory.images.T).topk(10).indices]
    of_texts = (query @ memory.texts[3:].T).topk(3).indices + 3
    assert torch.equal(retrieved, torch.cat([images, of_texts], 1))
    with torch.no_grad():
        expected = run.classifier.logits(run.classifier.features(IMAGES)) + memory.text_logits(retrieved)
        torch.testing.assert_close(run.classifier(IMAGES), expected)

    # A photo retrieves neither itself nor its own description.
    _, nearest = rac.remember(setup)
    own = next(k for k, (file, _) in enumerate(setup.images) if file.path.endswith(PHOTO))
    rows = [row for row in nearest[own].tolist() if row >= 3]
    assert 3 + described.index("blue bells in snow") not in rows and len(rows) == 3
    itself = memory.images[[own]]
    others = memory.nearest(itself, (torch.tensor([own]), torch.tensor([-1])))
    expected_images = (itself @ memory.images.T)[0].argsort(descending=True, stable=True)
    kept = [k for k in expected_images.tolist() if k != own][:10]
    assert others[0, :10].tolist() == memory.labels[kept].tolist()
    assert COUNTS[2][0] == 4  # of its class the memory has three others
