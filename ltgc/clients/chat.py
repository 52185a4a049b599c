"""Asking an LLM or a vision model: ChatOpenAI over any OpenAI-compatible server, with every reply stored."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast
from weakref import WeakValueDictionary

import openai
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from ltgc.clients.chat_cache import ChatCache
from ltgc.clients.limits import question_tokens
from ltgc.clients.server import Server
from ltgc.clients.store import Store
from ltgc.pipeline.settings.servers import ChatSettings


@dataclass(frozen=True)
class Reply:
    """What a model said, or why it said nothing."""

    text: str
    refused: bool = False  # the API marks it as a refusal, or as filtered
    truncated: bool = False  # max_tokens was reached
    failure: str | None = None  # the request failed after its retries: "http_500", "timeout", ... or "refused"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False  # the server did not say how many tokens; see limits.tokens

    @property
    def unusable(self) -> str | None:
        """Why nothing in it can be used; None if something may be."""
        if self.failure:
            return self.failure
        if self.refused:
            return "refused"
        if not self.text.strip():
            return "empty"
        return "truncated" if self.truncated else None

    @property
    def counts(self) -> Counter[str]:
        """What it adds to the metrics of a stage, whether it was paid for today or came from the store."""
        counts = Counter(calls=1, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        if self.estimated:
            counts["calls_with_estimated_tokens"] = 1
        return counts


class Chat:
    """A chat model behind a server. `of(slug)` gives the same one, storing its replies with that class."""

    def __init__(self, server: Server, store: Store) -> None:
        section = cast(ChatSettings, server.section)
        self.server = server
        self._store = store
        self._slug = "replies"
        self._determining: dict[str, Any] = {
            "model": section.model,
            "temperature": section.temperature,
            "max_tokens": section.max_tokens,
            "seed": section.seed,
        }
        standard = section.max_tokens_param == "max_completion_tokens"
        self._http = server.http_client()
        self._model = ChatOpenAI(
            model=section.model,
            base_url=server.base_url,
            api_key=SecretStr(server.key),
            temperature=section.temperature,
            seed=section.seed,
            max_completion_tokens=section.max_tokens if standard else None,
            extra_body=None if standard else {"max_tokens": section.max_tokens},
            streaming=section.stream,
            stream_usage=section.stream,
            stream_chunk_timeout=None,  # the whole stream has one timeout, see HTTPClient
            timeout=section.timeout,
            max_retries=section.retries,
            default_headers=server.headers,
            http_async_client=self._http,
            use_responses_api=False,
        )
        # The same question asked twice at once is asked once: the second waits and finds the first one's reply.
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    def of(self, slug: str) -> "Chat":
        bound = object.__new__(Chat)
        bound.__dict__.update(self.__dict__)
        bound._slug = slug
        return bound

    async def ask(self, messages: list[BaseMessage]) -> Reply:
        """The reply to `messages`, from the store if it was given before.

        A request that fails leads to a Reply with `failure`; one that no other request can do better than
        (a wrong key, model or address) raises LTGCError.
        """
        cache = ChatCache(self._store, self._slug, messages, self._determining)
        model = self._model.model_copy(update={"cache": cache})
        lock = self._asking.setdefault(cache.key, asyncio.Lock())
        async with lock, self.server.limits.slots, cache.paid(), self._paced(cache, messages) as used:
            try:
                message = await model.ainvoke(messages)
            # ValueError, TypeError, KeyError, IndexError: a body that is not what the API promises.
            except (openai.OpenAIError, ValueError, TypeError, KeyError, IndexError) as error:
                return Reply("", failure=self.server.failure(error))
            usage = message.usage_metadata
            used.append(usage["total_tokens"] if usage else 0)
        self.server.answered()
        finish = message.response_metadata.get("finish_reason")
        return Reply(
            text=str(message.text).encode("utf-8", "replace").decode(),  # JSON may smuggle lone surrogates in
            refused=bool(message.additional_kwargs.get("refusal")) or finish == "content_filter",
            truncated=finish == "length",
            prompt_tokens=usage.get("input_tokens", 0) if usage else 0,
            completion_tokens=usage.get("output_tokens", 0) if usage else 0,
            estimated=bool(message.response_metadata.get("usage_estimated")),
        )

    @asynccontextmanager
    async def _paced(self, cache: ChatCache, messages: list[BaseMessage]) -> AsyncIterator[list[int]]:
        """Ask inside, when tokens_per_minute has room for the most that the reply may take; name what it took."""
        pace = self.server.limits.tokens
        used: list[int] = []
        if not pace.seconds or self._store.get(cache.key) is not None:
            yield used
            return
        reserved = question_tokens(messages, self._store.budget.image_tokens(cache.model)) + cache.max_tokens
        await pace.take(reserved)
        try:
            yield used
        finally:
            pace.give_back(reserved - sum(used))
