"""How fast and how lean the loops are: what the clients add to the time that a server takes anyway.

    python benchmarks/loops.py                 # all parts, about 5 minutes
    python benchmarks/loops.py latency         # 2,000 calls, 64 in flight, against a server that waits 1 s
    python benchmarks/loops.py scale           # 8,142 classes x 20 descriptions against an instant server
    python benchmarks/loops.py memory          # describe and ask: photos of 12 megapixels, 64 in flight

The server is a process of its own on this machine, so on few cores it takes part of what it measures.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import instant_server
import numpy as np
import openai
from instant_server import completion
from langchain_core.messages import HumanMessage
from PIL import Image
from rich.console import Console
from rich.table import Table

from graphs import prompts, reflect
from graphs.state import ReflectContext, ReflectState
from ltgc.clients import server
from ltgc.clients.chat import Chat
from ltgc.clients.store import Store
from ltgc.data.images import content_hash
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import (
    CLASSES,
    MANIFEST,
    SYNONYMS,
    ClassRecord,
    ImageRecord,
    Synonym,
    class_slug,
)
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED
from ltgc.pipeline.settings.servers import ChatSettings, completed

CALLS, IN_FLIGHT, LATENCY = 2000, 64, 1.0  # latency in seconds
ONE_AT_A_TIME = 10  # calls measured; the rest of the 2,000 would take half an hour of waiting
PHOTOS = 2 * IN_FLIGHT
TOGETHER = "together"  # in place of a latency: answers when IN_FLIGHT requests wait for one
MANY_CLASSES, FEW_CLASSES, DESCRIPTIONS = 8142, 500, 20  # iNaturalist 2018
console = Console(width=115)


# --- the server ---


def reply(question: str) -> dict[str, Any]:
    """20 descriptions of the class, one of an image, or the list that was sent with a repetition check."""
    name = question.partition('"')[2].partition('"')[0]
    if "describe this image" in question:
        text = f"A photo of the class {name}, {{with petals, long narrow leaves, a hairy stem}}{{in a meadow}}."
    elif "exclude the repetitive" in question:
        text = question.partition(":\n")[2].partition("\n\n")[0]
    else:
        entry = (
            "{}. A photo of the class {}, {{with {} petals, long narrow leaves, a hairy stem}}{{in meadow {}}}."
        )
        lines = (entry.format(i, name, 7 * i, 3 * i) for i in range(1, DESCRIPTIONS + 1))
        text = "\n".join(lines)
    return completion(question, text)


async def serve(latency: str) -> None:
    waiting = asyncio.Barrier(IN_FLIGHT)

    async def respond(request: dict[str, Any]) -> dict[str, Any]:
        question = request["messages"][-1]["content"]
        if not isinstance(question, str):  # with an image
            question = " ".join(part["text"] for part in question if part["type"] == "text")
        await (waiting.wait() if latency == TOGETHER else asyncio.sleep(float(latency)))
        return reply(question)

    await instant_server.serve(respond)


def running_server(latency: float | str) -> AbstractContextManager[str]:
    return instant_server.running_server(__file__, "serve", str(latency))


def section(base_url: str, concurrency: int) -> ChatSettings:
    values = completed(yaml.safe_load((ROOT / "params.yaml").read_text()))["llm"]
    return ChatSettings.model_validate(values | {"base_url": base_url, "concurrency": concurrency})


# --- 2,000 calls of a second each ---


async def plain(base_url: str, folder: Path, calls: int) -> None:
    """Our client with its store, one question a class."""
    settings = section(base_url, IN_FLIGHT)
    with server.running(llm=settings) as (llm,), Store(folder, [settings]) as store:
        async with Chat(llm, store) as chat:
            await asyncio.gather(
                *(chat.ask(f"{i:04d}", [HumanMessage(f'Describe the class "c{i}".')]) for i in range(calls))
            )


async def graphs(base_url: str, folder: Path, calls: int) -> None:
    """The reflect graph as `extend` runs it: a question and a repetition check a class, replies stored."""
    settings = section(base_url, IN_FLIGHT)
    with server.running(llm=settings) as (llm,), Store(folder, [settings]) as store:
        async with Chat(llm, store) as chat:
            context = ReflectContext(chat, prompts.load(), DESCRIPTIONS, 12, 3, True, 6000)

            async def one(i: int) -> None:
                c = ClassRecord(label=i, name=f"c{i}", slug=f"{i:04d}", train=0, val=0, test=0, shot="few")
                start = ReflectState(class_record=c, existing=[])
                end = await reflect.graph.ainvoke(start, context=context)
                assert end["counts"]["calls"] == 2

            await asyncio.gather(*(one(i) for i in range(calls // 2)))


async def bare(base_url: str, folder: Path, calls: int) -> None:
    """asyncio and the openai client: what one would write by hand, and nothing kept."""
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", timeout=60) as client:

        async def one(i: int) -> None:
            async with slots:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": f'Describe the class "c{i}".'}]
                )

        await asyncio.gather(*(one(i) for i in range(calls)))


async def one_at_a_time(base_url: str, folder: Path, calls: int) -> None:
    """As the authors' scripts ask."""
    with openai.OpenAI(base_url=base_url, api_key="none", timeout=60) as client:
        for i in range(calls):
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f'Describe the class "c{i}".'}]
            )


Way = Callable[[str, Path, int], Coroutine[Any, Any, None]]
WAYS: list[tuple[str, Way, int, float | None]] = [  # name, function, calls, goal for wall time / ideal
    ("Chat client, replies stored", plain, CALLS, 1.10),
    ("reflect graph, replies stored", graphs, CALLS, 1.25),
    ("bare asyncio + openai, nothing stored", bare, CALLS, None),
    ("one at a time, as the authors' scripts", one_at_a_time, ONE_AT_A_TIME, None),
]


def latency() -> None:
    ideal = CALLS * LATENCY / IN_FLIGHT
    table = Table(title=f"{CALLS:,} calls of {LATENCY:g} s, {IN_FLIGHT} in flight: ideally {ideal:.1f} s")
    for heading in ("", "wall s", "÷ ideal", "goal", "client CPU ms a call"):
        table.add_column(heading, justify="left" if not heading else "right")
    with running_server(LATENCY) as base_url:
        for name, way, calls, goal in WAYS:
            with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # a real disk, not a tmpfs
                os.environ["LTGC_CACHE"] = f"{folder}/pool"
                asyncio.run(way(base_url, Path(folder) / "warm", 2))  # imports and pools
                wall, cpu = time.monotonic(), time.process_time()
                asyncio.run(way(base_url, Path(folder) / "store", calls))
                wall, cpu = (time.monotonic() - wall) * CALLS / calls, time.process_time() - cpu
            note = f" (of {calls} calls)" if calls != CALLS else ""
            table.add_row(
                name + note, f"{wall:,.1f}", f"{wall / ideal:.2f}", f"{goal:.2f}" if goal else "",
                f"{cpu / calls * 1000:.1f}",
            )  # fmt: skip
    console.print(table)


# --- iNaturalist 2018 ---


@contextmanager
def stage_folder(**changes: Mapping[str, Any]) -> Iterator[Path]:
    """A folder of its own as the working directory, with a pool and params.yaml with these changes."""
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        os.chdir(folder)
        os.environ["LTGC_CACHE"] = f"{folder}/pool"
        Path("prompts").symlink_to(ROOT / "prompts")
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        for section_name, values_of_section in changes.items():
            values[section_name] |= values_of_section
        Path("params.yaml").write_text(yaml.safe_dump(values))
        yield Path(folder)
        os.chdir(ROOT)


def write_classes(number: int) -> list[ClassRecord]:
    """Classes of one training and one test image each."""
    names = [f"c{i}" for i in range(number)]
    records = [
        ClassRecord(label=i, name=name, slug=class_slug(i, name), train=1, val=0, test=1, shot="few")
        for i, name in enumerate(names)
    ]
    files.write_records_csv(CLASSES, records, ClassRecord)
    return records


def measured(run: Callable[[], None], **figures: int) -> None:
    """Prints seconds, CPU seconds and the peak of this process's memory in GB as JSON, with other figures."""
    wall, cpu = time.monotonic(), time.process_time()
    run()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, **figures}))


def in_its_process(*arguments: str) -> dict[str, float]:
    """What `measured` prints there."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def extend(base_url: str, classes: int) -> None:
    from stages import extend as stage

    changes: dict[str, dict[str, Any]] = {
        "llm": {"base_url": base_url, "concurrency": IN_FLIGHT},
        "extend": {"target": DESCRIPTIONS + 1},
    }
    with stage_folder(**changes):
        write_classes(classes)
        files.write_jsonl(EXISTING, [])
        measured(stage.main, classes=classes)
        kept = sum(1 for _ in EXTENDED.open())
    assert kept == classes * DESCRIPTIONS, f"{kept} descriptions"


def scale() -> None:
    table = Table(title=f"Stage extend, {DESCRIPTIONS} descriptions a class, instant server")
    for heading in ("classes", "wall s", "wall ms a class", "CPU ms a class", "peak RSS GB"):
        table.add_column(heading, justify="right")
    runs = []
    with running_server(0) as base_url:
        for classes in (FEW_CLASSES, MANY_CLASSES):
            run = in_its_process("extend", base_url, str(classes))
            runs.append(run)
            table.add_row(
                f"{classes:,}", f"{run['wall']:.1f}", f"{run['wall'] / classes * 1000:.1f}",
                f"{run['cpu'] / classes * 1000:.1f}", f"{run['peak']:.2f}",
            )  # fmt: skip
    few, many = (run["wall"] / run["classes"] for run in runs)
    table.caption = f"wall a class, {MANY_CLASSES:,} against {FEW_CLASSES} classes: {many / few:.2f} (goal 1.10)"
    console.print(table)


# --- photos of 12 megapixels ---


def photos(base_url: str, name: str, number: int) -> None:
    """Stage describe or ask about so many photos, at most 255."""
    from stages import ask, describe

    changes: dict[str, dict[str, Any]] = {
        "vision": {"base_url": base_url, "concurrency": IN_FLIGHT, "timeout": 600},
        "data": {"source": "folder", "root": "."},
        "ask": {"max_images": number},
    }
    with stage_folder(**changes):
        # Grain, as no PNG packs it: the largest requests that there are.
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)).save("photo.jpg")
        photo = bytearray(Path("photo.jpg").read_bytes())
        table = photo.index(b"\xff\xdb") + 5  # of quantisation: another first number makes other pixels
        images = []
        for i, c in enumerate(write_classes(number), 1):
            photo[table] = i
            Path(f"{c.name}.jpg").write_bytes(photo)
            hash = content_hash(bytes(photo))
            image = ImageRecord(path=f"{c.name}.jpg", label=c.label, class_name=c.name, split="train", hash=hash)
            images += [image, image.model_copy(update={"split": "test"})]
        files.write_records_csv(MANIFEST, images, ImageRecord)
        files.write_records_csv(SYNONYMS, [], Synonym)
        measured({"describe": describe, "ask": ask}[name].main)


def memory() -> None:
    table = Table(title=f"{PHOTOS} photos of 12 megapixels, {IN_FLIGHT} in flight (goal: below 1.2 GB)")
    for heading in ("stage", "wall s", "peak RSS GB"):
        table.add_column(heading, justify="right")
    with running_server(TOGETHER) as base_url:
        for name in ("describe", "ask"):
            run = in_its_process("photos", base_url, name, str(PHOTOS))
            table.add_row(name, f"{run['wall']:.1f}", f"{run['peak']:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast and how lean the loops are")
    parser.add_argument("what", nargs="?", choices=["latency", "scale", "memory", "serve", "extend", "photos"])
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.what == "serve":
        asyncio.run(serve(args.arguments[0]))
    elif args.what == "extend":
        extend(args.arguments[0], int(args.arguments[1]))
    elif args.what == "photos":
        photos(args.arguments[0], args.arguments[1], int(args.arguments[2]))
    else:
        for part in (latency, scale, memory):
            if args.what in (None, part.__name__):
                part()
        console.print(f"{os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
