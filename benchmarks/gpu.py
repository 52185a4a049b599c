"""What one GPU does for LTGC: a training step, CLIP's filter and local drawing, each against the bare network.

    ltgc bench --gpu        # at most 20 minutes; writes bench.json and prints the same as a table for the docs
    ltgc bench              # a small run on the CPU, to see that it works

It reuses train.py, clip.py and t2i.py beside it; each alternates between the ways within this run. Drawing
measures the pipeline of params.yaml if t2i.backend is diffusers, and else one of Stable Diffusion 1.5's size with
random weights. Without a GPU all of it is small: the embedded CLIP, float32, a pipeline of 19 M parameters.
"""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import clip
import diffusers
import t2i
import torch
import train
import transformers
from rich.progress import track

from ltgc.classifier import tuning
from ltgc.pipeline import params
from ltgc.pipeline.settings.servers import T2ISettings
from ltgc.pipeline.terminal import console, output

CUDA = torch.cuda.is_available()
# Images a step, steps of a timed run, steps of a compiled one beyond those of a run that mostly compiles.
TRAINING = ("ViT-B/32", 512, 50, 200) if CUDA else ("embedded", 16, 3, 3)
FILTER = ("ViT-B/32", 256, 4096, 64) if CUDA else ("embedded", 64, 128, 16)  # as clip.MODELS
IMAGES, ROUNDS, LIMIT = (32, 3, 300) if CUDA else (8, 1, 60)  # of drawing; seconds
BEST_OF = 3


def measure() -> dict[str, Any]:
    """All figures, as bench.json holds them. Prints the table."""
    began = time.perf_counter()
    figures: dict[str, Any] = {"device": device(), "versions": {n: version(n) for n in ("torch", "diffusers")}}
    work = {"training": training, "filter": scoring, "drawing": drawing}
    for name in track(work, "measuring", console=console, transient=True):
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = work[name](Path(folder))
        if CUDA:
            torch.cuda.empty_cache()
    figures["seconds"] = round(time.perf_counter() - began)
    output().print(table(figures), soft_wrap=True)
    return figures


def device() -> str:
    return (
        torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
    )


def training(folder: Path) -> dict[str, Any]:
    """BalanceMix with LoRA against the bare step, and against a large matrix product."""
    name, batch_size, steps, more = TRAINING
    model = train.load(name)
    side = model.model.visual.image_size[0]
    settings = train.settings_of(batch_size, steps)
    data, _ = train.training_sets(model, folder)
    network = train.classifier(model, settings, tuning.apply)

    def bare(steps: int) -> None:
        train.on_batches(network, train.same_batch(side, batch_size, steps))

    def ours(steps: int, compile: bool = False) -> None:
        changed = settings.model_copy(update={"steps": steps, "compile": compile})
        train.ltgc("balancemix", network, data, changed)

    ways = {"bare": bare, "balancemix": ours}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float | None] = {}
    for way, run in ways.items():
        run(2)  # kernels are chosen at the first step
        peaks[way] = peak(partial(run, 2))
    for _ in range(BEST_OF):
        for way, run in ways.items():
            seconds[way].append(train.seconds(partial(run, steps)))
    rates = {way: batch_size * steps / min(taken) for way, taken in seconds.items()}
    # Each run compiles anew: what a step takes is the difference of a long run and a short one.
    peaks["compiled"] = peak(partial(ours, 2, compile=True))
    short, long = (train.seconds(partial(ours, n, compile=True)) for n in (steps, steps + more))
    rates["compiled"] = batch_size * more / max(long - short, 1e-9)
    flops, product = train.flops_an_image(network, side, batch_size), train.matmul_rate()
    return {
        "of": f"{name}, LoRA, BalanceMix, {train.PRECISION}, {batch_size} images a step, {device()}",
        "images_per_second": rates["balancemix"],
        "bare_images_per_second": rates["bare"],
        "compiled_images_per_second": rates["compiled"],
        "of_bare": statistics.median(b / o for b, o in zip(seconds["bare"], seconds["balancemix"], strict=True)),
        "compiled_of_bare": rates["compiled"] / rates["bare"],
        "of_matmul": flops * rates["balancemix"] / product,
        "compiled_of_matmul": flops * rates["compiled"] / product,
        "matmul_tflops": product / 1e12,
        "peak_gib": peaks,
    }


def peak(run: Any) -> float | None:
    """GiB of GPU memory that it takes at most."""
    if not CUDA:
        run()
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**30


def scoring(folder: Path) -> dict[str, Any]:
    """CLIP through the batcher from 256 graphs, against plain open_clip."""
    console.quiet = True  # of the progress of the graphs
    try:
        rates: dict[str, list[float]] = {}
        used = peak(lambda: rates.update(clip.measure(FILTER[0], train.DEVICE, *FILTER[1:])))
    finally:
        console.quiet = False
    ratios = clip.of_the_better_plain(rates)
    way = next(way for way in rates if "refine graphs" in way)
    return {
        "of": f"{FILTER[0]}, {way}, {device()}",
        "images_per_second": statistics.median(rates[way]),
        "of_plain": ratios[way],
        "waiters_of_plain": next(ratio for way, ratio in ratios.items() if "waiters" in way),
        "peak_gib": used,
    }


def drawing(folder: Path) -> dict[str, Any]:
    """Through graphs, batcher and store, against the bare diffusers pipeline."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    settings = pipeline(folder)
    before = os.environ.get("LTGC_CACHE")
    os.environ["LTGC_CACHE"] = str(folder / "pool")
    try:
        taken: dict[str, list[tuple[float, float]]] = {}
        run = t2i.measure(settings, folder / "store", IMAGES, ROUNDS, LIMIT)
        used = peak(lambda: taken.update(asyncio.run(run)))
    finally:
        os.environ.pop("LTGC_CACHE") if before is None else os.environ.update(LTGC_CACHE=before)
    ratios = [bare / ours for (bare, _), (ours, _) in zip(taken["bare"], taken["ours"], strict=True)]
    d, named = (
        settings.diffusers,
        Path(settings.model).name if folder in Path(settings.model).parents else settings.model,
    )
    return {
        "of": f"{named}, {settings.size}, {d.steps} steps, {d.dtype}, batches of {d.batch_size}, {device()}",
        "images_per_second": IMAGES / min(seconds for seconds, _ in taken["ours"]),
        "of_bare": statistics.median(ratios),
        "peak_gib": used,  # of two pipelines: ours and the bare one
    }


def pipeline(folder: Path) -> T2ISettings:
    """The user's own pipeline on one device, or one with random weights."""
    settings = params.load("servers", "t2i", path=ROOT / "params.yaml").t2i
    if CUDA and settings.backend == "diffusers":
        one = settings.diffusers.model_copy(update={"cluster": None})
        return settings.model_copy(update={"diffusers": one})
    name, sizes = ("sd15-random", t2i.SD15) if CUDA else ("small-random", t2i.SMALL)
    t2i.save_pipeline(folder / name, sizes)
    if CUDA:
        return t2i.section(str(folder / name), 512, dtype="bfloat16", device="cuda", steps=25, batch_size=8)
    return t2i.section(str(folder / name), 64, steps=2, batch_size=4)


def table(figures: dict[str, Any]) -> str:
    """Markdown, for the docs."""
    training, filter, drawing = figures["training"], figures["filter"], figures["drawing"]

    def memory(gib: float | None) -> str:
        return "–" if gib is None else f"{gib:.1f}"

    rows = [
        ("bare training step", training["bare_images_per_second"], 1.0, training["peak_gib"]["bare"]),
        ("BalanceMix", training["images_per_second"], training["of_bare"], training["peak_gib"]["balancemix"]),
        (
            "BalanceMix, `compile: true`",
            *(
                training["compiled_images_per_second"],
                training["compiled_of_bare"],
                training["peak_gib"]["compiled"],
            ),
        ),
        ("CLIP's filter", filter["images_per_second"], filter["of_plain"], filter["peak_gib"]),
        ("drawing", drawing["images_per_second"], drawing["of_bare"], drawing["peak_gib"]),
    ]
    lines = [
        f"`ltgc bench`, {figures['device']}, torch {figures['versions']['torch']}, {figures['seconds']} s:",
        "",
        "| what | images/s | of the bare network | GiB |",
        "|---|--:|--:|--:|",
        *(f"| {what} | {rate:,.4g} | {ratio:.3f} | {memory(gib)} |" for what, rate, ratio, gib in rows),
        "",
        f"A large matrix product: {training['matmul_tflops']:,.3g} TFLOP/s, of which BalanceMix reaches "
        f"{training['of_matmul']:.2f} and compiled {training['compiled_of_matmul']:.2f}.",
        *(f"- {name}: {figures[name]['of']}" for name in ("training", "filter", "drawing")),
    ]
    return "\n".join(lines)
