"""A small CLIP with random weights and a small data set around it, for tests of training and evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from helpers.paths import ROOT, link_prompts
from helpers.photo_folders import image_record
from ltgc.clip.encoder import Clip
from ltgc.clip.weights import load_clip
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    MANIFEST,
    ClassRecord,
    ImageRecord,
    ShotGroup,
    Split,
    class_slug,
)
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.settings.clip import ClipSettings

MODEL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.3, 0.25, 0.2],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# label -> (train, val, test, accepted generated images): one class of each shot group
COUNTS = [(102, 2, 3, 0), (20, 2, 3, 0), (4, 2, 3, 6)]
SHOTS: list[ShotGroup] = ["many", "medium", "few"]
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
NAMES = ["red/rose", "green fern", "blue “bell”"]


def save_clip(folder: Path) -> str:
    """Write the CLIP into `folder`; its name for params.yaml."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=MODEL["embed_dim"], vision_cfg=MODEL["vision_cfg"], text_cfg=MODEL["text_cfg"]
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def load_tiny(name: str) -> Clip:
    return load_clip(ClipSettings(model=name, pretrained=None), "cpu")


def world(root: Path, clip_name: str, generated: bool = True, **train: Any) -> None:
    """Fill `root` with params.yaml and every artifact that the stages train and evaluate read."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text())
    section["clip"] = {"model": clip_name, "pretrained": None}
    section["data"] |= {"source": "folder", "root": str(root / "photos")}
    section["train"] |= {"steps": 4, "batch_size": 5, "warmup_steps": 1, "device": "cpu"} | train
    section["evaluate"] |= {"batch_size": 4, "device": "cpu"}  # 9 test images: the last batch is short
    section["seeds"] = [0, 1]
    link_prompts(root)
    (root / "params.yaml").write_text(yaml.safe_dump(section))
    rng = np.random.default_rng(0)
    images, classes, attempts = [], [], []
    for label, (train_count, val, test, accepted) in enumerate(COUNTS):
        name = NAMES[label]
        slug = class_slug(label, name)
        classes.append(
            ClassRecord(
                label=label, name=name, slug=slug, train=train_count, val=val, test=test, shot=SHOTS[label]
            )
        )
        counts: dict[Split, int] = {"train": train_count, "val": val, "test": test}
        for split, count in counts.items():
            for index in range(count):
                path = f"{slug}/{split}-{index}.png"
                draw(root / "photos" / path, label, rng)
                images.append(image_record(root / "photos", path, label, name, split))
        for index in range(accepted + 1):  # and one that was rejected
            verdict = "accepted" if index < accepted and generated else "rejected"
            path = f"generated/{verdict}/{slug}/{index}.png"
            draw(root / path, label, rng)
            attempts.append(attempt(f"{slug}/{index:04d}-0", label, path, verdict))
    templates = [
        ClassTemplate(
            label=label,
            class_name=name,
            template=f"A photo of the class {name} with petal number {label}",
            features=[],
            source="llm",
            reason=None,
        )
        for label, name in enumerate(NAMES)
    ]
    files.write_records_csv(root / MANIFEST, images, ImageRecord)
    files.write_records_csv(root / CLASSES, classes, ClassRecord)
    files.write_jsonl(root / TEMPLATES, templates)
    files.write_jsonl(root / EXISTING, [])
    files.write_jsonl(root / EXTENDED, [])
    files.write_jsonl(root / ATTEMPTS, attempts)
    files.write_records_csv(root / DROPPED, [], Contamination)


def draw(path: Path, label: int, rng: np.random.Generator) -> None:
    """A noisy picture in the colour of its class, not square and larger than CLIP's input."""
    pixels = np.array(COLOURS[label]) + rng.integers(-40, 40, size=(20, 24, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def attempt(id: str, label: int, image: str, verdict: Any) -> Attempt:
    return Attempt(
        id=id,
        label=label,
        class_name=NAMES[label],
        index=0,
        round=0,
        prompt="a flower",
        seed=0,
        image=image,
        score=0.5,
        threshold=0.4,
        verdict=verdict,
        refines=None,
        reason=None,
    )


def descriptions(
    root: Path, existing: Sequence[tuple[int, str | None, bool]], extended: Sequence[str], photo: str = "x.png"
) -> None:
    """existing: label, description, kept; extended: of class 2, each followed by one that was dropped."""
    files.write_jsonl(
        root / EXISTING,
        [
            ExistingDescription(
                label=label,
                class_name=NAMES[label],
                image=photo,
                description=text,
                features=None,
                scene=None,
                kept=kept,
                reason=None if kept else "refused",
                replies=1,
            )
            for label, text, kept in existing
        ],
    )
    files.write_jsonl(
        root / EXTENDED,
        [
            ExtendedDescription(
                label=2,
                class_name=NAMES[2],
                index=index,
                round=1,
                description=text if index % 2 == 0 else "a thing to be dropped",
                features=None,
                scene=None,
                kept=index % 2 == 0,
                reason=None if index % 2 == 0 else "repeats",
            )
            for index, text in enumerate(text for text in extended for _ in range(2))
        ],
    )
