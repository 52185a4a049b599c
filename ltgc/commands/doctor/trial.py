"""`ltgc doctor --try`: one small request to each model server, with the settings of params.yaml, and what it cost.

A parameter that a model refuses, or a limit that its thinking uses up, is found by this request and not by the
hundred thousand that follow.
"""

import asyncio
import tempfile
from pathlib import Path

from langchain_core.messages import BaseMessage
from PIL import Image

from graphs import prompts
from ltgc.clients import budget
from ltgc.clients.chat import Chat
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.server import Server, running
from ltgc.clients.store import Store
from ltgc.data import images
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import T2ISettings

SLUG = "0000-trial"
SIDE = 64  # pixels of the image that the vision model is shown
PROMPT = "A photo of the class apple, with a round red fruit on a wooden table."


def ask(name: str, settings: Params) -> str:
    """What the model of the section `name` made of one request, and its cost.

    It is asked each time, and paid for. Raises LTGCError that says what to do.
    """
    section = getattr(settings, name)
    if isinstance(section, T2ISettings) and section.backend == "diffusers":
        return "not asked: it draws on this machine"
    one = _draw if isinstance(section, T2ISettings) else _chat
    with (
        tempfile.TemporaryDirectory() as folder,
        running(**{name: section}) as (server,),
        Store(Path(folder), [section], budget.load(), reuse=False) as store,
    ):
        found = asyncio.run(one(server, store))
        usd = store.tally.usd
    return f"{found}; {'no price' if usd is None else f'{usd:.6f} USD'}"


async def _chat(server: Server, store: Store) -> str:
    async with Chat(server, store) as chat:
        reply = await chat.ask(SLUG, _question(server.name, store.folder))
    tokens = f"{reply.prompt_tokens} tokens in, {reply.completion_tokens} out"
    if reply.reasoning_tokens:
        tokens += f", {reply.reasoning_tokens} of them thinking"
    if reply.unusable == "only_thought":
        raise LTGCError(
            f"{server.name}.max_tokens: the reply is empty, all was spent on thinking ({tokens}); "
            f"set {server.name}.reasoning_effort: none or lower, or raise max_tokens"
        )
    if reply.unusable:
        raise LTGCError(f"{server.name}.model: no usable reply: {reply.unusable} ({tokens}); {server.said or ''}")
    return f"{' '.join(reply.text.split())[:60]!r}, {tokens}"


async def _draw(server: Server, store: Store) -> str:
    async with OpenAIPainter(server, store) as painter:
        drawing = await painter.draw(SLUG, PROMPT, 0)
    if drawing.image is None:
        raise LTGCError(f"{server.name}.model: no usable image: {drawing.reason}; {server.said or ''}")
    image = images.decode(drawing.image)
    return f"a drawing of {image.width} x {image.height} pixels, {len(drawing.image):,} bytes"


def _question(name: str, folder: Path) -> list[BaseMessage]:
    if name == "llm":
        return prompts.load("extend").extend("apple", [], 1, 0)
    image = folder / "red.png"
    Image.new("RGB", (SIDE, SIDE), "red").save(image)
    return prompts.load("describe").describe("apple", images.data_url(image))
