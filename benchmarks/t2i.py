"""Local text-to-image: images/s through our pipeline against the bare diffusers pipeline at the same batch.

    python benchmarks/t2i.py

One run alternates between the two, on one Stable Diffusion with random weights in this process. Ours: every image
is asked for by a graph of its own (`graphs/refine.py`), all of them at once, gathered into batches, packed as PNG,
written to the store and synced to disk. Bare: a loop over full batches that throws the images away.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from graphs import prompts, refine
from graphs.review import Review
from graphs.state import RefineContext, RefineState
from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.store import Store
from ltgc.clip.device import pick_device
from ltgc.clip.subject import Score, Subject
from ltgc.pipeline.artifacts.descriptions import ExtendedDescription
from ltgc.pipeline.settings.servers import T2ISettings

IMAGES = 48
ROUNDS = 7
# About 19 M parameters, for a CPU.
SMALL = {
    "text": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4},
    "unet": {
        "sample_size": 16, "layers_per_block": 1, "cross_attention_dim": 256, "attention_head_dim": 8,
        "block_out_channels": (64, 128, 256), "down_block_types": ("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2,
    },
    "vae": {"block_out_channels": (32, 32, 64, 64)},
}  # fmt: skip
# As Stable Diffusion 1.5: 860 M parameters of the UNet, 123 M of the text encoder.
SD15 = {
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
}
PROMPT = "A photo of the class rose, with {} red petals in a garden"


def save_pipeline(folder: Path, sizes: dict[str, Any] = SMALL) -> None:
    """A Stable Diffusion with random weights; its tokenizer reads letters."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        **sizes["text"],
    )  # fmt: skip
    unet = UNet2DConditionModel(**sizes["unet"])
    vae = AutoencoderKL(
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        **sizes["vae"],
    )  # fmt: skip
    pipe: Any = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, safety_checker=None,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)


class AcceptAll:
    async def score(self, subject: Subject, image: bytes) -> Score:
        return Score(1.0, 0.0)


def bare(pipe: Any, settings: T2ISettings, images: int) -> None:
    d = settings.diffusers
    named = {"num_inference_steps": d.steps, "guidance_scale": d.guidance}
    if settings.size != "auto":
        named |= dict(zip(("width", "height"), map(int, settings.size.split("x")), strict=True))
    for start in range(0, images, d.batch_size):
        numbers = range(start, start + d.batch_size)
        pipe(
            prompt=[PROMPT.format(i) for i in numbers],
            generator=[torch.Generator().manual_seed(i) for i in numbers],
            **{name: value for name, value in named.items() if value is not None},
        )


async def ours(painter: DiffusersPainter, turn: int, images: int) -> None:
    context: Any = RefineContext(None, prompts.load(), Review(), painter, AcceptAll(), 0)  # type: ignore[arg-type]

    async def one(i: int) -> None:
        description = ExtendedDescription(
            label=0, class_name=f"rose {turn}", index=i, round=1, description=PROMPT.format(i),
            features=None, scene=None, kept=True, reason=None,
        )  # fmt: skip
        start = RefineState(slug="0000-rose", description=description, start=None)
        end = await refine.graph.ainvoke(start, context=context)
        assert end["attempts"][-1].image is not None

    await asyncio.gather(*(one(i) for i in range(images)))


def section(model: str, side: int = 128, **changes: Any) -> T2ISettings:
    diffusers = {"dtype": "float32", "device": "cpu", "steps": 4, "guidance": 5.0, "batch_size": 8} | changes
    values = {
        "backend": "diffusers", "base_url": "embedded", "model": model, "api_key_env": "NONE", "seed": 0,
        "size": f"{side}x{side}", "send_seed": True, "timeout": 1, "retries": 0, "concurrency": 1,
    }  # fmt: skip
    return T2ISettings.model_validate(values | {"diffusers": diffusers})


async def measure(
    settings: T2ISettings, folder: Path, images: int, rounds: int, limit: float
) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of each turn; after `limit` seconds no other turn begins, but for the first two."""
    pipe: Any = DiffusionPipeline.from_pretrained(
        settings.model, dtype=getattr(torch, settings.diffusers.dtype), use_safetensors=True,
        revision=settings.diffusers.revision, variant=settings.diffusers.variant,
    ).to(pick_device(settings.diffusers.device))  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    taken: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    began = perf_counter()
    with Store(folder, [settings]) as store:
        async with DiffusersPainter(settings, store) as painter:
            for turn in range(rounds + 1):
                if turn > 1 and perf_counter() - began > limit:
                    break
                for name in taken:
                    start = perf_counter(), process_time()
                    if name == "bare":
                        await asyncio.to_thread(bare, pipe, settings, images)
                    else:
                        await ours(painter, turn, images)
                    taken[name].append((perf_counter() - start[0], process_time() - start[1]))
    return {name: turns[1:] for name, turns in taken.items()}  # the first one loads and warms up


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        save_pipeline(Path(name) / "pipeline")
        os.environ["LTGC_CACHE"] = f"{name}/pool"
        settings = section(str(Path(name) / "pipeline"))
        taken = asyncio.run(measure(settings, Path(name) / "store", IMAGES, ROUNDS, limit=float("inf")))
    batch_size = settings.diffusers.batch_size
    table = Table(title=f"{IMAGES} images of {settings.size} in batches of {batch_size}, {os.cpu_count()} cores")
    for heading in ("", "images/s, best turn", "median", "CPU ms an image"):
        table.add_column(heading, justify="right" if heading else "left")
    best: dict[str, float] = {}
    for name, turns in taken.items():
        rates = [IMAGES / seconds for seconds, _ in turns]
        best[name] = max(rates)
        cpu = 1000 * statistics.median(seconds for _, seconds in turns) / IMAGES
        table.add_row(name, f"{best[name]:.2f}", f"{statistics.median(rates):.2f}", f"{cpu:.0f}")
    ratios = [bare / ours for (bare, _), (ours, _) in zip(taken["bare"], taken["ours"], strict=True)]
    console = Console()
    console.print(table)
    # The best turns are those that other processes on the machine disturbed least.
    console.print(
        f"ours / bare: {best['ours'] / best['bare']:.3f} of the best turns, {statistics.median(ratios):.3f} median"
    )
    console.print(f"turns: {', '.join(f'{r:.3f}' for r in ratios)}; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
