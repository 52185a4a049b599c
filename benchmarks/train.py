"""What a training step costs beside the network: images/s of BalanceMix against the bare LoRA step.

    python benchmarks/train.py              # about 6 minutes on two cores; nothing else should run meanwhile
    python benchmarks/train.py embedded     # only the embedded CLIP (64 px), or ViT-B/32

All variants train the same network with LoRA on the same number of images a step (pairs, for ours), in turns, in
one run; the best of the rounds counts. The limit is the bare step on tensors that are on the device already:
forward, cross-entropy, backward, clipping, AdamW. On a GPU they compute in bf16, and what share of the chip's
matrix multiplications (bf16, measured in the same run) the step reaches is printed, with the peak of memory.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import accelerate
import open_clip
import peft
import timm.data
import torch
import torch.nn.functional as F
from loading import draw_photos
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets
from torchvision.transforms import v2

from ltgc.classifier import tuning
from ltgc.classifier.network import Classifier
from ltgc.clip import crops, pixels
from ltgc.clip.encoder import Clip
from ltgc.pipeline import params
from ltgc.pipeline.settings.training import Method, TrainSettings
from ltgc.training.loop import train
from ltgc.training.methods import METHODS
from ltgc.training.phases import classification
from ltgc.training.plan import TrainingSet, make_plan
from ltgc.training.priors import source_priors

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
PRECISION = "bf16" if CUDA else "fp32"
CLASSES, PHOTOS, ROUNDS, WORKERS = 24, 240, 3, 2
# name -> images a step, steps a round
SIZES = {"embedded": (32, 20), "ViT-B/32": (16, 3)} if not CUDA else {"embedded": (512, 50), "ViT-B/32": (512, 30)}
console = Console(width=115)


def load(name: str) -> Clip:
    if name == "embedded":
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{ROOT / 'embedded/clip'}")
    else:
        model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    return Clip(model.eval().requires_grad_(False).to(DEVICE), preprocess, lambda texts: torch.empty(0), DEVICE)


def with_peft_attention(visual: nn.Module, settings: TrainSettings) -> nn.Module:
    """LoRA as peft puts it on open_clip's nn.MultiheadAttention, on the same layers."""
    targets = r"transformer\.resblocks\.\d+\.(attn|mlp\.(c_fc|c_proj))"
    lora = settings.lora
    return peft.get_peft_model(visual, peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets))


def classifier(clip: Clip, settings: TrainSettings, tune: Callable[[Any, TrainSettings], Any]) -> Classifier:
    visual = tune(deepcopy(clip.model.visual), settings)
    width = clip.model.visual.output_dim
    return Classifier(visual, torch.randn(CLASSES, width), 50.0).to(DEVICE).train()


def step(network: Classifier, optimizer: torch.optim.Optimizer, x: Tensor, targets: Tensor) -> None:
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=PRECISION == "bf16"):
        loss = F.cross_entropy(network(x).float(), targets)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def on_batches(network: Classifier, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.AdamW(network.parameter_groups(0.01), fused=True)
    for x, targets in batches:
        step(network, optimizer, x, targets)


def same_batch(side: int, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    x = torch.rand(batch_size, 3, side, side, device=DEVICE) * 255
    targets = torch.rand(batch_size, CLASSES, device=DEVICE).softmax(-1)
    return ((x, targets) for _ in range(steps))


def timm_batches(folder: Path, side: int, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """torchvision's loader with random resized crops and flips, and timm's Mixup."""
    crop = v2.RandomResizedCrop(side, (crops.SMALLEST_CROP**2, 1.0), (1.0, 1.0))
    transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])
    sampler = torch.utils.data.RandomSampler(range(PHOTOS), num_samples=batch_size * steps, replacement=True)
    data = datasets.ImageFolder(folder, transform)
    loader = DataLoader(data, batch_size, sampler=sampler, num_workers=WORKERS, pin_memory=CUDA)
    mixup = timm.data.Mixup(mixup_alpha=1.0, num_classes=CLASSES, label_smoothing=0.0)
    for x, labels in loader:
        yield mixup(x.to(DEVICE, non_blocking=True).float(), labels.to(DEVICE))


def ltgc(method: Method, network: Classifier, data: TrainingSet, section: TrainSettings) -> None:
    """All steps of a method, with the settings of its own but for the number of steps."""
    recipe = METHODS[method]
    settings = section.of(method).model_copy(update={"steps": section.steps})
    plan = make_plan(recipe, data, settings)
    priors = source_priors(recipe, data, settings, CLASSES) if plan.source is not None else None
    train(network, plan, data, settings, objective=classification(source_priors=priors))


def seconds(run: Callable[[], object]) -> float:
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate() -> float:
    """FLOP/s of one large matrix multiplication in the network's precision."""
    side, dtype = (8192, torch.bfloat16) if CUDA else (1024, torch.float32)
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    seconds(lambda: [a @ b for _ in range(5)])
    return 20 * 2 * side**3 / seconds(lambda: [a @ b for _ in range(20)])


def settings_of(batch_size: int, steps: int) -> TrainSettings:
    section = params.load("train", path=ROOT / "params.yaml").train
    return section.model_copy(
        update={"steps": steps, "batch_size": batch_size, "precision": PRECISION, "workers": WORKERS}
    )


def training_sets(clip: Clip, folder: Path) -> tuple[TrainingSet, TrainingSet]:
    """Half photos and half drawings: in memory, and as files."""
    side = clip.model.visual.image_size[0]
    paths = draw_photos(folder, side * 9 // 4, side * 7 // 4, PHOTOS)  # 504 x 392 for 224 px
    labels = torch.arange(PHOTOS) % CLASSES
    in_memory = TrainingSet(pixels.load(paths, clip), labels, original=PHOTOS // 2)
    return in_memory, TrainingSet(pixels.FilePixels(paths, clip), labels, original=PHOTOS // 2)


def flops_an_image(network: Classifier, side: int, batch_size: int) -> float:
    """Of a training step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        on_batches(network, same_batch(side, batch_size, 1))
    return counter.get_total_flops() / batch_size


def compare(name: str, folder: Path) -> None:
    batch_size, steps = SIZES[name]
    clip = load(name)
    side = clip.model.visual.image_size[0]
    settings = settings_of(batch_size, steps)
    in_memory, on_disk = training_sets(clip, folder)

    ours = classifier(clip, settings, tuning.apply)
    wrapped = classifier(clip, settings, with_peft_attention)
    variants: dict[str, Callable[[], None]] = {
        "bare step (the limit)": lambda: on_batches(ours, same_batch(side, batch_size, steps)),
        "LTGC, BalanceMix, images in memory": lambda: ltgc("balancemix", ours, in_memory, settings),
        "LTGC, ltgc_plus, images in memory": lambda: ltgc("ltgc_plus", ours, in_memory, settings),
        f"LTGC, BalanceMix, JPEG files, {WORKERS} workers": lambda: ltgc("balancemix", ours, on_disk, settings),
        f"timm's Mixup, torchvision's loader, {WORKERS} workers": lambda: on_batches(
            ours, timm_batches(folder, side, batch_size, steps)
        ),
        "bare step, peft's nn.MultiheadAttention": lambda: on_batches(
            wrapped, same_batch(side, batch_size, steps)
        ),
    }
    seconds(partial(on_batches, ours, same_batch(side, batch_size, 2)))  # kernels are chosen at the first step
    seconds(partial(on_batches, wrapped, same_batch(side, batch_size, 2)))
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(ROUNDS):  # in turns: another load on the machine meets all alike
        for variant, run in variants.items():
            best[variant] = min(best[variant], seconds(run))
    rates = {variant: batch_size * steps / best[variant] for variant in variants}
    limit = rates["bare step (the limit)"]
    table = Table(title=f"{name}, {side} px, {batch_size} images a step, {PRECISION} on {DEVICE.type}")
    table.add_column("variant")
    for column in ("images/s", "of the limit"):
        table.add_column(column, justify="right")
    for variant, rate in rates.items():
        table.add_row(variant, f"{rate:.1f}", f"{rate / limit:.3f}")
    console.print(table)
    if CUDA:
        flops = flops_an_image(ours, side, batch_size) * rates["LTGC, BalanceMix, images in memory"]
        torch.cuda.reset_peak_memory_stats()
        ltgc("balancemix", ours, in_memory, settings)
        peak = torch.cuda.max_memory_allocated() / 1024**3
        console.print(
            f"{flops / matmul_rate():.2f} of the rate of a large matrix product; peak memory {peak:.1f} GiB"
        )


def main(names: list[str]) -> None:
    accelerate.utils.set_seed(0)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SIZES))
