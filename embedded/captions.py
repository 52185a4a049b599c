"""What the small CLIP is trained on, as words: random flowers, families of near neighbours, captions, tokenizer.

Features are drawn independently of one another and names are made-up syllables, so that the CLIP learns to read
descriptions and to pass over names. No species enters here.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedded import words
from embedded.wildflowers.flower import AXES, SCENES, Flower

CONTEXT = 64  # tokens
FAMILY = 4  # a random flower and three that differ from it in one feature
OPTIONS = AXES | {"scene": SCENES}
SYLLABLES = ("an", "bel", "co", "dra", "el", "fi", "gra", "hu", "is", "ka", "lo", "mi", "nu", "or", "pe", "quo",
             "ra", "sti", "tu", "um", "ver", "xi", "ya", "zo", "phy", "ris", "le", "mon", "ta", "cus")  # fmt: skip


def random_flower(rng: Generator) -> Flower:
    """Features drawn independently; open flowers, which differ in more ways, are half of them."""
    value = {axis: str(rng.choice(options)) for axis, options in AXES.items()}
    if rng.random() < 0.4:
        value["form"] = "open"
    value["count"] = str(rng.choice(AXES["count"][1:])) if value["form"] == "open" else "one"
    return Flower(**value, scene=str(rng.choice(SCENES)))


def near_neighbour(flower: Flower, rng: Generator) -> Flower:
    """The flower with another value on one axis that can be seen; form and scene change half as often."""
    axes = ["form", "colour", "accent", "leaves", "scene"] + (["count", "shape"] if flower.form == "open" else [])
    weights = np.array([0.5 if axis in ("form", "scene") else 1.0 for axis in axes])
    axis = str(rng.choice(axes, p=weights / weights.sum()))
    options = AXES["count"][1:] if axis == "count" else OPTIONS[axis]
    other = replace(flower, **{axis: str(rng.choice([o for o in options if o != getattr(flower, axis)]))})
    if axis == "form":
        count = str(rng.choice(AXES["count"][1:])) if other.form == "open" else "one"
        other = replace(other, count=count)
    return other


def families(rng: Generator, count: int) -> list[Flower]:
    """`count` flowers, family after family."""
    flowers: list[Flower] = []
    while len(flowers) < count:
        flower = random_flower(rng)
        flowers += [flower, *(near_neighbour(flower, rng) for _ in range(FAMILY - 1))]
    return flowers


def codes(flower: Flower) -> list[int]:
    """The value on every axis of OPTIONS as an index; -1 for the petals of a flower that is not open."""
    hidden = () if flower.form == "open" else ("count", "shape")
    return [-1 if a in hidden else options.index(getattr(flower, a)) for a, options in OPTIONS.items()]


def random_name(rng: Generator) -> str:
    name = " ".join("".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(2))
    return name.capitalize()


def caption(flower: Flower, rng: Generator) -> tuple[str, list[bool]]:
    """A caption in the shapes that Templates 1 and 2 take, and which axes of OPTIONS it tells.

    Half of the captions leave out much: the embedded vision model asks for one feature at a time.
    """
    often = 0.95 if rng.random() < 0.5 else rng.uniform(0.2, 1)
    said = [axis for axis in words.FEATURES if rng.random() < often]
    text = words.put(vars(flower), rng, said)
    opening = rng.random()
    if opening < 0.75:
        text = f"A photo of the class {random_name(rng)}, {rng.choice(['with ', '', 'showing '])}{text}"
    elif opening < 0.9:
        text = f"A photo of {text}"
    scene = rng.random() < 0.5
    tells = [axis in said or axis == "form" or (axis == "scene" and scene) for axis in OPTIONS]
    shown = [tell and code >= 0 for tell, code in zip(tells, codes(flower), strict=True)]
    return f"{text} {words.put_scene(flower.scene, rng)}." if scene else f"{text}.", shown


def flower_captions() -> Iterator[str]:
    """What the tokenizer of the embedded CLIP is trained on."""
    rng = np.random.default_rng(1)
    return (caption(random_flower(rng), rng)[0] for _ in range(20_000))


def train_tokenizer(out: Path, texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of captions, saved where open_clip finds it."""
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
    tokenizer.train_from_iterator(texts, trainer)
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
    return tokenizer
