"""What people want of LTGC outside the pipeline, in a few lines each: a notebook, another training loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import WeightedRandomSampler
from torchmetrics import Metric

from ltgc.classifier.network import Classifier, load_classifier
from ltgc.clip.encoder import Clip
from ltgc.clip.weights import load_clip
from ltgc.commands.predict import CLASS_NAMES
from ltgc.data.splits import shot_group
from ltgc.pipeline import files
from ltgc.pipeline.settings.clip import ClipSettings
from ltgc.training.mixing import mix, mix_labels, sample_lambda


@dataclass(frozen=True)
class BalanceMix:
    """Mixes a batch of photos with a batch of generated images, as timm's Mixup mixes a batch with itself (§3.2).

    Sample the photos with `balanced_sampler`: that is the balance in BalanceMix.

    >>> mixed = BalanceMix(classes=3)
    >>> images, targets = mixed(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]),
    ...                         torch.rand(4, 3, 8, 8), torch.tensor([2, 2, 2, 2]))
    >>> images.shape, targets.shape, targets.sum(1).allclose(torch.ones(4))
    (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]), True)
    """

    classes: int
    beta: tuple[float, float] = (1.0, 1.0)  # λ ~ Beta(a, b)

    def __call__(self, photos: Tensor, labels: Tensor, drawings: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) float and (B,) int64 of both -> images (B, C, H, W), targets (B, classes) (Eq. 3, 4)."""
        weight = sample_lambda(self.beta, (len(labels),)).to(photos.device)
        return mix(photos, drawings, weight), mix_labels(labels, drawn, weight, self.classes)


def balanced_sampler(labels: Sequence[int]) -> WeightedRandomSampler:
    """For torch's DataLoader: each class is drawn as often as any other, whatever its number of images.

    >>> sampler = balanced_sampler([0, 0, 0, 0, 1])
    >>> sampler.weights.tolist()
    [0.25, 0.25, 0.25, 0.25, 1.0]
    """
    own = torch.tensor(labels)
    return WeightedRandomSampler((1 / torch.bincount(own)[own]).tolist(), len(labels))


class ShotAccuracy(Metric):
    """Top-1 accuracy over all images, and the mean class accuracy of each shot group (§4.1), in [0, 1].

    counts: training images of each class. Many: more than 100, medium: 20 to 100, few: fewer than 20.
    A group without classes, or without a test image, is left out.

    >>> accuracy = ShotAccuracy(counts=[500, 50, 5])
    >>> accuracy.update(torch.tensor([[.9, .1, 0], [.2, .8, 0], [.7, .2, .1]]), torch.tensor([0, 1, 2]))
    >>> {name: round(float(value), 2) for name, value in accuracy.compute().items()}
    {'all': 0.67, 'many': 1.0, 'medium': 1.0, 'few': 0.0}
    """

    higher_is_better = True
    right: Tensor  # (C,)
    total: Tensor  # (C,)

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self.groups = [shot_group(count) for count in counts]
        for name in ("right", "total"):
            self.add_state(name, torch.zeros(len(counts), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """logits: (B, C); labels: (B,) int64."""
        classes = len(self.groups)
        self.right += torch.bincount(labels[logits.argmax(1) == labels], minlength=classes)
        self.total += torch.bincount(labels, minlength=classes)

    def compute(self) -> dict[str, Tensor]:
        accuracies = self.right / self.total
        found = {"all": self.right.sum() / self.total.sum()}
        for shot in ("many", "medium", "few"):
            members = [c for c, group in enumerate(self.groups) if group == shot and self.total[c]]
            if members:
                found[shot] = accuracies[members].mean()
        return found


def scores(images: Sequence[Image.Image], templates: Sequence[str], clip: Clip) -> Tensor:
    """S of each image and text, (N, T) float32: the cosine that the filter holds against its threshold (Eq. 2).

    >>> clip = load_clip(ClipSettings(model="local-dir:embedded/clip", pretrained=None), "cpu")
    >>> images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    >>> scores(images, ["A photo of the class rose with red petals."], clip).shape
    torch.Size([2, 1])
    """
    pixels = torch.stack([clip.pixels(image.convert("RGB")) for image in images])
    return clip.image_features(clip.normalise(pixels)) @ clip.text_features(templates).T


@dataclass(frozen=True)
class Model:
    """A classifier that `ltgc export` wrote."""

    classes: list[str]  # by label
    clip: Clip
    classifier: Classifier

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """The probability of each class for each image, (N, C) float32."""
        pixels = torch.stack([self.clip.pixels(image.convert("RGB")) for image in images])
        return F.softmax(self.classifier(pixels.to(self.clip.device)), dim=-1).cpu()


def load(folder: str | Path, device: str = "auto") -> Model:
    """The model in a folder that `ltgc export` wrote. Raises LTGCError for another folder.

    >>> model = load(exported, "cpu")
    >>> probabilities = model([Image.new("RGB", (64, 64), "red")])
    >>> probabilities.shape[1] == len(model.classes), round(float(probabilities.sum()), 4)
    (True, 1.0)
    """
    clip = load_clip(ClipSettings(model=f"local-dir:{folder}", pretrained=None, revision=None), device)
    names = files.read_json(Path(folder) / CLASS_NAMES)["classes"]
    return Model(names, clip, load_classifier(Path(folder), clip))
