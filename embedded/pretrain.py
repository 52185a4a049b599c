"""Train the small CLIP of the embedded default on drawn images and captions of random features.

    python -m embedded.pretrain                 # about 20 minutes on two cores; writes embedded/clip
    python -m embedded.pretrain --steps 200 --out /tmp/clip

It never sees a species or its name: features are drawn independently of one another, and the names in its
captions are made-up syllables, so that it learns to read descriptions and to pass over names.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.random import Generator
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional as F

from embedded import words
from embedded.wildflowers.draw import draw
from embedded.wildflowers.flower import AXES, SCENES, Flower
from embedded.wildflowers.species import load_species

HERE = Path(__file__).parent
OUT = HERE / "clip"
CONTEXT = 64  # tokens
PHOTOS = 12  # fresh ones of each species, to score zero-shot
MEAN, STD = (0.45, 0.42, 0.38), (0.25, 0.24, 0.26)
SYLLABLES = ("an", "bel", "co", "dra", "el", "fi", "gra", "hu", "is", "ka", "lo", "mi", "nu", "or", "pe", "quo",
             "ra", "sti", "tu", "um", "ver", "xi", "ya", "zo", "phy", "ris", "le", "mon", "ta", "cus")  # fmt: skip


def random_flower(rng: Generator) -> Flower:
    """Features drawn independently; open flowers, which differ in more ways, are half of them."""
    value = {axis: str(rng.choice(options)) for axis, options in AXES.items()}
    if rng.random() < 0.4:
        value["form"] = "open"
    value["count"] = str(rng.choice(AXES["count"][1:])) if value["form"] == "open" else "one"
    return Flower(**value, scene=str(rng.choice(SCENES)))


def random_name(rng: Generator) -> str:
    name = " ".join("".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(2))
    return name.capitalize()


def caption(flower: Flower, rng: Generator) -> str:
    """A caption of some of the flower's features, in the shapes that Templates 1 and 2 take."""
    said = [axis for axis in words.FEATURES if rng.random() < 0.92]
    text = words.put(vars(flower), rng, said)
    opening = rng.random()
    if opening < 0.75:
        text = f"A photo of the class {random_name(rng)}, {rng.choice(['with ', '', 'showing '])}{text}"
    elif opening < 0.9:
        text = f"A photo of {text}"
    return f"{text} {words.put_scene(flower.scene, rng)}." if rng.random() < 0.6 else f"{text}."


def draw_many(seed_and_count: tuple[int, int]) -> tuple[np.ndarray, list[Flower]]:
    """`count` random flowers and their images (count, 64, 64, 3) uint8; a third are painted."""
    seed, count = seed_and_count
    rng = np.random.default_rng([7, seed])
    flowers = [random_flower(rng) for _ in range(count)]
    images = [np.asarray(draw(f, rng, "painted" if rng.random() < 0.33 else "photo")) for f in flowers]
    return np.stack(images), flowers


def train_tokenizer(out: Path) -> int:
    """A byte-level BPE of captions, saved where open_clip finds it. Returns its vocabulary size."""
    rng = np.random.default_rng(1)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((caption(random_flower(rng), rng) for _ in range(20_000)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "pad_token": "<pad>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer.get_vocab_size()


def model_config(vocab_size: int) -> dict:
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocab_size,
                "width": 128,
                "heads": 4,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": 2,
                "hf_tokenizer_name": "tokenizer.json",  # any name: open_clip then reads this folder's tokenizer
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def to_input(images: np.ndarray) -> torch.Tensor:
    """(N, 64, 64, 3) uint8 -> (N, 3, 64, 64) float32, normalised."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def shift_and_flip(x: torch.Tensor, rng: Generator) -> torch.Tensor:
    """Moves a batch by up to 4 px and mirrors it half the time: a pool of images then lasts longer."""
    dx, dy = rng.integers(0, 9, 2)
    x = F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, dy : dy + 64, dx : dx + 64]
    return x.flip(3) if rng.random() < 0.5 else x


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pool", type=int, default=48_000, help="images drawn")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    config = model_config(train_tokenizer(args.out))
    (args.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = open_clip.create_model(f"local-dir:{args.out}", load_weights=False)
    tokenize = open_clip.get_tokenizer(f"local-dir:{args.out}")
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")

    chunk = 1000
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(draw_many, [(i, chunk) for i in range(args.pool // chunk)], chunksize=1)
    images = np.concatenate([part[0] for part in parts])
    flowers = [flower for part in parts for flower in part[1]]
    print(f"drew {len(images):,} images")

    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=0.05, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.08)
    loss_of = ClipLoss()
    model.train()
    start = time.monotonic()
    for step in range(args.steps):
        rows = rng.choice(len(images), args.batch, replace=False)
        x = shift_and_flip(to_input(images[rows]), rng)
        texts = tokenize([caption(flowers[row], rng) for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time of float32 where the CPU has bf16
            image, text, scale = model(x, texts)
        loss = loss_of(image.float(), text.float(), scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        if step % 100 == 99:
            model.eval()
            matched = (image @ text.T).argmax(1).eq(torch.arange(args.batch)).float().mean().item()
            print(f"{step + 1:5d}  {time.monotonic() - start:5.0f} s  loss {loss.item():.3f}  "
                  f"matched {matched:.2f}  {zero_shot(model, tokenize)}", flush=True)  # fmt: skip
            save_file(model.state_dict(), args.out / "open_clip_model.safetensors")
            model.train()
    model.eval()
    save_file(model.state_dict(), args.out / "open_clip_model.safetensors")
    card = {"steps": args.steps, "batch": args.batch, "pool": args.pool} | zero_shot(model, tokenize)
    (args.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(card)


if __name__ == "__main__":
    main()
