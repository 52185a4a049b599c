"""`ltgc doctor --try`: one small request to each model server, with the settings of params.yaml, and what it cost.

A parameter that a model refuses, or a limit that its thinking uses up, is found by this request and not by the
hundred thousand that follow.
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from PIL import Image

from graphs import prompts
from graphs.parse.reply import Unusable
from graphs.parse.yes_no import parse_answers
from ltgc.clients import budget
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.server import Server, running
from ltgc.clients.store import Store
from ltgc.data import images
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import ServerSettings, T2ISettings

SLUG = "0000-trial"
SIDE = 64  # pixels of the image that the vision model is shown
FEATURES = ["a plain red area", "a blue stripe"]  # that the scorer `ask` asks it about
PROMPT = "A photo of the class apple, with a round red fruit on a wooden table."


def ask(name: str, settings: Params) -> str:
    """What the model of the section `name` made of one request, and its cost.

    It is asked each time, and paid for. Raises LTGCError that says what to do.
    """
    section = getattr(settings, name)
    if isinstance(section, T2ISettings) and section.backend == "diffusers":
        return "not asked: it draws on this machine"
    return _paid(name, section, _draw if isinstance(section, T2ISettings) else _chat)


def ask_features(settings: Params) -> str:
    """What the vision model says of a small image's features, asked as `filter.scorer: ask` asks it of a drawing.

    It is asked and paid for, and raises LTGCError, as `ask` does.
    """
    if settings.filter.scorer != "ask":
        return f"not asked: filter.scorer is {settings.filter.scorer}"
    return _paid("vision", settings.vision, _see)


def _paid(name: str, section: ServerSettings, one: Callable[[Server, Store], Coroutine[Any, Any, str]]) -> str:
    """What `one` found with the server of the section `name`, and what it cost."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(**{name: section}) as (server,),
        Store(Path(folder), [section], budget.load(), reuse=False) as store,
    ):
        found = asyncio.run(one(server, store))
        usd = store.tally.usd
    return f"{found}; {'no price' if usd is None else f'{usd:.6f} USD'}"


async def _chat(server: Server, store: Store) -> str:
    reply, tokens = await _reply(server, store, _question(server.name, store.folder))
    return f"{' '.join(reply.text.split())[:60]!r}, {tokens}"


async def _see(server: Server, store: Store) -> str:
    question = prompts.load("ask_features").ask_features(FEATURES, _red(store.folder), None, 1)
    reply, tokens = await _reply(server, store, question)
    try:
        answers = parse_answers(reply.text, len(FEATURES))
    except Unusable as error:
        said = " ".join(reply.text.split())[:60]
        raise LTGCError(
            f"vision.model: {said!r} is no yes or no to each of {len(FEATURES)} features ({error.reason}); "
            "change prompts/ask_features.txt, or choose another model or filter.scorer"
        ) from error
    return f"sees {sum(answers)} of {len(answers)} features in a drawing, {tokens}"


async def _reply(server: Server, store: Store, question: list[BaseMessage]) -> tuple[Reply, str]:
    """A usable reply, and its tokens in words."""
    async with Chat(server, store) as chat:
        reply = await chat.ask(SLUG, question)
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
    return reply, tokens


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
    return prompts.load("describe").describe("apple", _red(folder))


def _red(folder: Path) -> str:
    """A red image as a data URL."""
    image = folder / "red.png"
    Image.new("RGB", (SIDE, SIDE), "red").save(image)
    return images.data_url(image)
