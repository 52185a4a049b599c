"""Train the small CLIP of the embedded default on drawn images and captions of random features.

    python -m embedded.pretrain --pool /tmp/pool.npy     # about an hour on two cores; writes embedded/clip
    python -m embedded.pretrain --pool /tmp/pool.npy --images 8000 --steps 200 --out /tmp/clip

It never sees a species or its name (embedded/captions.py). It has two losses: linear heads that tell the features,
which are cheap and see every image, and CLIP's contrast with the captions of some of the images. Every batch holds
near neighbours, flowers that differ in one feature, because siblings among the species do.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.random import Generator
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from embedded import words
from embedded.captions import (
    CONTEXT,
    FAMILY,
    OPTIONS,
    caption,
    codes,
    families,
    flower_captions,
    train_tokenizer,
)
from embedded.wildflowers.draw import draw
from embedded.wildflowers.flower import Flower
from embedded.wildflowers.species import load_species

HERE = Path(__file__).parent
OUT = HERE / "clip"
PHOTOS = 12  # fresh ones of each species, to score zero-shot
EMBED = 128
CHUNK = 1000  # images of one seed
WORKERS = 2  # processes of one thread: they meet once a step, threads at every operation
CAPTIONED = 3 / 8  # of the images; a caption costs as much as an image
SAVE_EVERY = 300  # seconds
MEAN, STD = (0.45, 0.42, 0.38), (0.25, 0.24, 0.26)


def flowers_of(seed: int) -> tuple[list[Flower], Generator]:
    """CHUNK flowers, and the generator to draw them with."""
    rng = np.random.default_rng([31, seed])
    return families(rng, CHUNK), rng


def draw_chunk(seed: int) -> np.ndarray:
    """The images of a chunk, (CHUNK, 64, 64, 3) uint8; a third are painted."""
    flowers, rng = flowers_of(seed)
    return np.stack([np.asarray(draw(f, rng, "painted" if rng.random() < 0.33 else "photo")) for f in flowers])


def draw_pool(file: Path, count: int) -> None:
    """Writes `count` images to `file`, which the workers map into memory."""
    pool = np.lib.format.open_memmap(file, "w+", np.uint8, (count, 64, 64, 3))
    with torch.multiprocessing.get_context("spawn").Pool(WORKERS) as workers:
        for i, images in enumerate(workers.imap(draw_chunk, range(count // CHUNK))):
            pool[i * CHUNK : (i + 1) * CHUNK] = images
    pool.flush()


def model_config(vocab_size: int) -> dict:
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "vision_cfg": {
                "image_size": 64, "layers": 3, "width": 192, "head_width": 32, "patch_size": 16, "mlp_ratio": 2.0,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocab_size,
                "width": 128,
                "heads": 4,
                "layers": 2,
                "mlp_ratio": 2.0,
                "pool_type": "eos",
                "eos_id": 2,
                "hf_tokenizer_name": "tokenizer.json",  # any name: open_clip then reads this folder's tokenizer
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }  # fmt: skip


def to_input(images: np.ndarray) -> torch.Tensor:
    """(N, 64, 64, 3) uint8 -> (N, 3, 64, 64) float32, normalised."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def shift_and_flip(x: torch.Tensor, rng: Generator) -> torch.Tensor:
    """Moves images by up to 4 px and mirrors them half the time: a pool of images then lasts longer."""
    dx, dy = rng.integers(0, 9, 2)
    x = F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, dy : dy + 64, dx : dx + 64]
    return x.flip(3) if rng.random() < 0.5 else x


def text_features(model: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """What model.encode_text gives, without the padding that no caption of the batch needs."""
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = x[torch.arange(len(tokens)), (tokens == 2).int().argmax(1)] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def contrast(image: torch.Tensor, text: torch.Tensor, fits: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss where several captions fit an image. image: (N, d), text: (M, d), fits: (N, M) bool."""
    logits = scale * image @ text.T
    fits = fits.float()
    of_text = -(fits / fits.sum(0) * logits.log_softmax(0)).sum(0).mean()
    has = fits.sum(1) > 0
    of_image = -(fits[has] / fits[has].sum(1, keepdim=True) * logits[has].log_softmax(1)).sum(1).mean()
    return (of_text + of_image) / 2


class Loss(nn.Module):
    """The heads' cross-entropy, summed over the features, and the contrast with captions."""

    def __init__(self, model: open_clip.CLIP, tokenizer: Tokenizer, sizes: Sequence[int]) -> None:
        """sizes: values of each feature."""
        super().__init__()
        self.model, self.tokenizer, self.sizes = model, tokenizer, list(sizes)
        self.heads = nn.Linear(EMBED, sum(sizes))

    def forward(self, pixels: torch.Tensor, values: torch.Tensor, captions: list[str], said: torch.Tensor):
        """pixels: (N, 3, 64, 64). values: (N, axes), -1 where not drawn. captions, said: of the first M images."""
        tokens = torch.tensor([encoding.ids for encoding in self.tokenizer.encode_batch(captions)])
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):  # both faster here
            raw = self.model.encode_image(pixels)
            text = text_features(self.model, tokens)
        logits = self.heads(raw.float()).split(self.sizes, 1)
        features = sum(F.cross_entropy(logits[i], values[:, i], ignore_index=-1) for i in range(len(logits)))
        fits = ((values[:, None] == values[None, : len(captions)]) | ~said).all(-1)
        image = F.normalize(raw.float(), dim=-1)
        return features, contrast(image, text, fits, self.model.logit_scale.exp())


@torch.inference_mode()
def zero_shot(model, tokenize, seed: int = 5) -> dict[str, float]:
    """Top-1 accuracy (%) over the species on fresh photos, with descriptions of their features and with names."""
    rng = np.random.default_rng(seed)
    species = load_species(HERE / "wildflowers")
    photos = np.stack([np.asarray(draw(s.sample(rng), rng)) for s in species for _ in range(PHOTOS)])
    labels = torch.arange(len(species)).repeat_interleave(PHOTOS)
    image = model.encode_image(to_input(photos), normalize=True)

    def accuracy(texts: list[str]) -> float:
        prediction = (image @ model.encode_text(tokenize(texts), normalize=True).T).argmax(1)
        return round(100 * (prediction == labels).float().mean().item(), 1)

    def typical(s) -> str:
        values = {axis: max(options, key=options.get) for axis, options in s.features.items()}
        return f"A photo of the class {s.name} with {words.put(values, rng)}."

    return {
        "zero_shot_templates": accuracy([typical(s) for s in species]),
        "zero_shot_names": accuracy([f"A photo of the class {s.name}." for s in species]),
        "chance": round(100 / len(species), 1),
    }


def average_gradients(parameters: list[nn.Parameter], progress: float) -> float:
    """Every worker gets the mean of all workers' gradients, and the mean of their progress."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([progress])])
    distributed.all_reduce(flat)
    flat /= WORKERS
    for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    return flat[-1].item()


def make_optimizer(parameters: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), fused=True)


def train(rank: int, args: argparse.Namespace, store: str) -> None:
    """One of WORKERS processes: half of every batch. The first one keeps the average weights and saves them."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng([0, rank])
    images = np.load(args.pool, mmap_mode="r")
    flowers = [flower for seed in range(args.images // CHUNK) for flower in flowers_of(seed)[0]]
    values = torch.tensor([codes(flower) for flower in flowers])

    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT)
    model = open_clip.create_model(f"local-dir:{args.out}", load_weights=False).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    loss_of = Loss(model, tokenizer, [len(options) for options in OPTIONS.values()])
    parameters = list(loss_of.parameters())
    optimizer = make_optimizer(parameters, args.lr)
    batch = args.batch // WORKERS // FAMILY  # families
    captioned = int(batch * CAPTIONED) * FAMILY  # images

    start = saved = time.monotonic()
    step, progress = 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * (1 + math.cos(math.pi * progress)) / 2
        chosen = rng.choice(args.images // FAMILY, batch, replace=False)
        rows = (chosen[:, None] * FAMILY + np.arange(FAMILY)).ravel()
        pixels = torch.cat([shift_and_flip(some, rng) for some in to_input(images[rows]).split(2 * FAMILY)])
        texts, said = zip(*(caption(flowers[row], rng) for row in rows[:captioned]), strict=True)
        features, contrasted = loss_of(pixels, values[rows], list(texts), torch.tensor(said))
        optimizer.zero_grad()
        (features + contrasted).backward()
        step += 1
        elapsed = time.monotonic() - start
        progress = average_gradients(parameters, max(step / args.steps, elapsed / 60 / args.minutes))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if rank == 0:
            average.update_parameters(model)
            if step % 100 == 0:
                print(f"{step:5d}  {elapsed:5.0f} s  {step * args.batch / elapsed:4.0f} images/s  "
                      f"features {features.item():.3f}  contrast {contrasted.item():.3f}", flush=True)  # fmt: skip
            if time.monotonic() - saved > SAVE_EVERY or progress >= 1:
                saved = time.monotonic()
                save(average.module, step, args)
    distributed.destroy_process_group()


def save(model: nn.Module, step: int, args: argparse.Namespace) -> None:
    model.eval()
    save_file(model.state_dict(), args.out / "open_clip_model.safetensors")
    scores = zero_shot(model, open_clip.get_tokenizer(f"local-dir:{args.out}"))
    card = {"steps": step, "batch": args.batch, "images": args.images} | scores
    (args.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(card, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="a file of drawn images, made if not there")
    parser.add_argument("--images", type=int, default=160_000, help="drawn")
    parser.add_argument("--steps", type=int, default=7141)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time at the latest")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    config = model_config(train_tokenizer(args.out, flower_captions()).get_vocab_size())
    (args.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    if not args.pool.exists():
        draw_pool(args.pool, args.images)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (args, f"{folder}/store"), nprocs=WORKERS)


if __name__ == "__main__":
    main()
