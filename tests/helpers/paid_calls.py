"""Questions and drawings that a stage of our own asks for, with its shared store in a folder."""

import asyncio
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage

from helpers.server_settings import SLUG
from ltgc.clients import server
from ltgc.clients.budget import Budget
from ltgc.clients.chat import Chat, Reply
from ltgc.clients.openai_painter import OpenAIPainter
from ltgc.clients.painter import Drawing
from ltgc.clients.store import Store
from ltgc.pipeline.settings.servers import ChatSettings, T2ISettings


def ask(section: ChatSettings, folder: Path, *questions: str, budget: Budget | None = None) -> list[Reply]:
    """The replies to all questions, asked at once."""

    async def all_of_them() -> list[Reply]:
        with server.running(llm=section) as (llm,), Store(folder, [section], budget) as store:
            async with Chat(llm, store) as chat:
                return await asyncio.gather(*(chat.ask(SLUG, [HumanMessage(question)]) for question in questions))

    return asyncio.run(all_of_them())


def draw(section: T2ISettings, folder: Path, *asked: tuple[Any, ...]) -> list[Drawing]:
    """The drawings of all (prompt, seed) or (prompt, seed, start), asked for at once."""

    async def all_of_them() -> list[Drawing]:
        with server.running(t2i=section) as (t2i,), Store(folder, [section]) as store:
            async with OpenAIPainter(t2i, store) as painter:
                return await asyncio.gather(*(painter.draw(SLUG, *each) for each in asked))

    return asyncio.run(all_of_them())
