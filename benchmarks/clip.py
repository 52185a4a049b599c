"""CLIP scoring: images/s through the filter from 256 concurrent graphs, against plain open_clip.

    python benchmarks/clip.py            # about 5 minutes on two cores; nothing else should run meanwhile

One run alternates between the ways, all from encoded images to scores, for the embedded CLIP (64 px) and for
ViT-B/32 with random weights (from 256 px). Plain: a loop over full batches, decoded on all cores by open_clip's
own preprocessing. Ours, 256 at a time: tasks that do nothing but wait for their score, which is what gathering
costs; and whole refine graphs, which adds what LangGraph costs. One at a time: as the authors' filter works.
"""

import asyncio
import io
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from rich.console import Console
from rich.table import Table

from graphs import prompts, refine
from graphs.review import Review
from graphs.state import RefineContext, RefineState
from ltgc.clients.painter import Drawing
from ltgc.clients.start import Start
from ltgc.clip.detection import BATCH, Absolute, Filter
from ltgc.clip.device import pick_device
from ltgc.clip.encoder import Clip
from ltgc.clip.subject import Subject
from ltgc.clip.weights import load_clip
from ltgc.data import images
from ltgc.pipeline.artifacts.descriptions import ExtendedDescription
from ltgc.pipeline.concurrency import run_all
from ltgc.pipeline.settings.clip import ClipSettings, FilterSettings
from ltgc.pipeline.terminal import console

GRAPHS = 256
ROUNDS = 3
# name: side of the drawings in pixels, how many are scored in batches, and one at a time
MODELS = {"embedded": (64, 2048, 512), "ViT-B/32": (256, 256, 48)}
PLAIN_BATCHES = (16, 64)  # the better one counts; on a CPU, 256 is slower (embedded: 0.6 of it)
TEXTS = [f"A photo of the class {n} with {n} petals." for n in range(24)]


class Drawn:
    """A T2I model that has drawn everything already."""

    def __init__(self, encoded: Sequence[bytes]) -> None:
        self.encoded = encoded

    def seed(self, class_name: str, index: int, round: int) -> int:
        return index

    async def draw(self, slug: str, prompt: str, seed: int, start: Start | None) -> Drawing:
        return Drawing(seed, self.encoded[seed])


def drawings(side: int, count: int) -> list[bytes]:
    """PNGs of smooth noise."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        file = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
        encoded.append(file.getvalue())
    return encoded


def load(name: str, device: torch.device) -> Clip:
    if name == "embedded":
        folder = ROOT / "embedded/clip"
        return load_clip(ClipSettings(model=f"local-dir:{folder}", pretrained=None), str(device))
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", load_weights=False).to(device).eval()
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return Clip(model, preprocess, open_clip.get_tokenizer("ViT-B-32"), device)


def measure(name: str, device: torch.device, side: int, many: int, few: int) -> dict[str, list[float]]:
    """Images a second of each way, one figure a round; the plain ways come first."""
    encoded = drawings(side, many)
    model = load(name, device)
    texts = model.text_features(TEXTS)
    settings = FilterSettings(scorer="cosine", threshold=0.8, offset=0.5, max_refinements=0, text="templates")
    scorer = Filter(settings, model, Absolute(settings, model, TEXTS))
    context: Any = RefineContext(None, prompts.load(), Review(), Drawn(encoded), scorer, 0)  # type: ignore[arg-type]
    decoders = ThreadPoolExecutor(os.cpu_count())

    def decode(data: bytes) -> torch.Tensor:
        return model.preprocess(images.decode(data))

    def plain(batch: int) -> None:
        for i in range(0, many, batch):
            pixels = torch.stack(list(decoders.map(decode, encoded[i : i + batch])))
            (model.image_features(pixels) @ texts.T).cpu()

    def one_at_a_time() -> None:
        for data in encoded[:few]:
            (model.image_features(decode(data)[None]) @ texts.T).cpu()

    async def task(index: int) -> None:
        await scorer.score(Subject(0), encoded[index])

    async def graph(index: int) -> None:
        description = ExtendedDescription(
            label=0, class_name="0", index=index, round=1, description="",
            features=None, scene=None, kept=True, reason=None,
        )  # fmt: skip
        start = RefineState(slug="0", description=description, start=None)
        await refine.graph.ainvoke(start, context=context)

    def ours(one: Callable[[int], Any]) -> None:
        asyncio.run(run_all("ours", range(many), one, "", at_once=GRAPHS))

    batch = BATCH.get(device.type, BATCH["cpu"])
    ways: dict[str, tuple[Callable[[], None], int]] = {
        **{f"plain, batches of {b}": (lambda b=b: plain(b), many) for b in PLAIN_BATCHES},  # type: ignore[misc]
        f"{GRAPHS} waiters, batches of {batch}": (lambda: ours(task), many),
        f"{GRAPHS} refine graphs, batches of {batch}": (lambda: ours(graph), many),
        "one at a time": (one_at_a_time, few),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (run, count) in ways.items():
            start = perf_counter()
            run()
            if number:  # the first round warms up
                rates[way].append(count / (perf_counter() - start))
    return rates


def of_the_better_plain(rates: dict[str, list[float]]) -> dict[str, float]:
    """The median ratio of each way to the better of the plain ones of its round."""
    best = [max(of_round) for of_round in zip(*list(rates.values())[: len(PLAIN_BATCHES)], strict=True)]
    return {
        way: statistics.median(rate / of_best for rate, of_best in zip(of_way, best, strict=True))
        for way, of_way in rates.items()
    }


def main() -> None:
    console.quiet = True
    device = pick_device("auto")
    cores = f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table("CLIP", "way", title=f"From encoded image to score ({cores}; medians of {ROUNDS})")
    table.add_column("images/s", justify="right")
    table.add_column("of the better plain", justify="right")
    for name in sys.argv[1:] or MODELS:
        rates = measure(name, device, *MODELS[name])
        for way, ratio in of_the_better_plain(rates).items():
            table.add_row(name, way, f"{statistics.median(rates[way]):,.0f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
