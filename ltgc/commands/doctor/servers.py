"""Checks of the model servers: the key, whether the server answers and knows the model, the prices."""

import asyncio
import difflib
from datetime import UTC, date, datetime

import openai
from langsmith.utils import tracing_is_enabled

from ltgc.clients.answers import any_json
from ltgc.clients.budget import Budget
from ltgc.clients.limits import Limits
from ltgc.clients.server import NO_KEY, Server, running
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import EMBEDDED, ServerSettings, T2ISettings

SECONDS = 10  # that a server may take to answer
SOON = 90  # days before a model is shut down, from which the doctor warns
NAMED = 5  # models that are named if the server does not know the one in params.yaml


class Warning(str):
    """What a check found that is no failure today, and needs somebody's attention."""


def key(name: str, settings: Params) -> str:
    """The environment holds the key that the server of the section `name` needs."""
    section = getattr(settings, name)
    if _draws_here(section):
        return "none needed: it draws on this machine"
    server = Server(name, section, Limits([section]))  # raises if the key is missing
    return "none needed" if server.key == NO_KEY else f"${section.api_key_env} is set"


def answers(name: str, settings: Params) -> str:
    """The server answers, accepts the key and knows the model: its list of models is read, which is free."""
    section = getattr(settings, name)
    if _draws_here(section):
        return "not asked: it draws on this machine"
    section = section.model_copy(update={"retries": 0, "timeout": min(section.timeout, SECONDS)})
    with running(**{name: section}) as (server,):
        listed = asyncio.run(_models(server))
    where = EMBEDDED if section.base_url == EMBEDDED else section.base_url
    if listed is None:
        return f"{where} answers; it lists no models (or base_url is not where its API begins: mostly /v1)"
    if section.model not in listed:
        near = difflib.get_close_matches(section.model, listed, NAMED, 0.3) or sorted(listed)[:NAMED]
        raise LTGCError(f"{name}.model: {where} knows no {section.model!r}; it knows {', '.join(near) or 'none'}")
    if (end := listed[section.model]) and (days := (end - datetime.now(UTC).date()).days) <= SOON:
        return Warning(f"{section.model} is shut down on {end}, in {days} days; choose another (docs/models.md)")
    return f"{where} knows {section.model}"


def prices(settings: Params) -> str:
    """If there is a cap in money, every model has a price."""
    budget = Budget(settings.budget, settings.prices)
    costs = {
        settings.llm.model: budget.cost(settings.llm.model),
        settings.vision.model: budget.cost(settings.vision.model),
        settings.t2i.model: budget.cost(settings.t2i.billed_as),
    }
    unknown = ", ".join(model for model, cost in costs.items() if cost is None)
    if unknown and settings.budget.max_usd is not None:
        raise LTGCError(f"prices: no price for {unknown}, and budget.max_usd is set; add it to params.yaml")
    return f"no price for {unknown}: the bill will say so" if unknown else "every model has one"


def tracing(settings: Params) -> str:
    """No environment variable makes LangChain upload what it sends."""
    if tracing_is_enabled():
        raise LTGCError(
            "LANGSMITH_TRACING (or LANGCHAIN_TRACING_V2) uploads every prompt and photo to LangSmith; unset it"
        )
    return "off: prompts and photos go to the servers of params.yaml only"


def _draws_here(section: ServerSettings) -> bool:
    return isinstance(section, T2ISettings) and section.backend == "diffusers"


async def _models(server: Server) -> dict[str, date | None] | None:
    """The models that the server lists, each with the day it is shut down; None if it has no such list."""
    async with server.client(any_json) as client:
        try:
            # Gemini's names begin with models/
            return {m.id.removeprefix("models/"): _shutdown(m) async for m in client.models.list()}
        except openai.APIStatusError as error:
            if error.status_code in (404, 405, 501):
                return None
            why = server.failure(error)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            why = server.failure(error)
    raise LTGCError(f"{server.name}.base_url {server.base_url}: {why}; it said: {server.said}")


def _shutdown(model: openai.types.Model) -> date | None:
    """The field `shutdown_date` of OpenAI's list; other servers have none."""
    try:
        return date.fromisoformat(getattr(model, "shutdown_date", None) or "")
    except (TypeError, ValueError):
        return None
