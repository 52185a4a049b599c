"""Asking an LLM or a vision model: ChatOpenAI over any OpenAI-compatible server, with every reply stored."""

import asyncio
import base64
import hashlib
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, cast
from weakref import WeakValueDictionary

import openai
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_openai import ChatOpenAI
from PIL import Image
from pydantic import SecretStr

from ltgc.clients import answers
from ltgc.clients.ledger import NOT_BILLED, Cost, Outcome
from ltgc.clients.limits import question_tokens, tokens
from ltgc.clients.payments import AnsweredElsewhere
from ltgc.clients.server import Server
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.artifacts.reasons import ReplyReason, RequestReason
from ltgc.pipeline.settings.servers import ChatSettings

MAX_TEXT = 200_000  # characters kept of one reply; graphs/parse reads no more


@dataclass(frozen=True)
class Reply:
    """What a model said, or why it said nothing."""

    text: str = ""
    refusal: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0  # all that is billed as output, thinking included
    reasoning_tokens: int = 0  # of these, what the model thought
    cached_tokens: int = 0  # of the prompt tokens, what the provider had in its cache
    cache_write_tokens: int = 0  # of the prompt tokens, what it put there
    service_tier: str | None = None  # the one that served it, where it is not the standard one
    tokens_estimated: bool = False  # the server did not count them; see limits.tokens
    failure: RequestReason | None = None  # of a request that failed after its retries

    @property
    def truncated(self) -> bool:
        """max_tokens was reached."""
        return self.finish_reason == "length"

    @property
    def only_thought(self) -> bool:
        """max_tokens was reached before the first word of the reply; the same question would end so again."""
        return self.truncated and not self.text.strip() and self.reasoning_tokens > 0

    @property
    def unusable(self) -> ReplyReason | RequestReason | None:
        """Why nothing in it can be used; None if something may be."""
        if self.failure:
            return self.failure
        if self.refusal or self.finish_reason == "content_filter":
            return "refused"
        if self.only_thought:
            return "only_thought"
        if not self.text.strip():
            return "empty"
        return "truncated" if self.truncated else None

    @property
    def counts(self) -> Counter[str]:
        """What it adds to the metrics of a stage, whether it was paid for today or was stored."""
        counts = Counter(calls=1, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        if self.reasoning_tokens:
            counts["reasoning_tokens"] = self.reasoning_tokens
        tier = f"{self.service_tier}_" if self.service_tier else ""
        if tier:
            counts[f"{tier}prompt_tokens"] = self.prompt_tokens
            counts[f"{tier}completion_tokens"] = self.completion_tokens
        if self.cached_tokens or self.cache_write_tokens:
            counts[f"{tier}cached_tokens"] = self.cached_tokens
            counts[f"{tier}cache_write_tokens"] = self.cache_write_tokens
        if self.tokens_estimated:
            counts["calls_with_estimated_tokens"] = 1
        return counts


STORED = {field.name for field in fields(Reply)}
FINAL = ("refused", "too_long")  # failures that asking again would not change


class Chat:
    """A chat model behind a server."""

    def __init__(self, server: Server, store: Store) -> None:
        section = cast(ChatSettings, server.section)
        self.server = server
        self._store = store
        self._section = section
        standard = section.max_tokens_param == "max_completion_tokens"
        body: dict[str, Any] = {} if standard else {"max_tokens": section.max_tokens}
        if section.stream:  # the HTTP client makes one answer of the stream
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        self._http = server.http_client(answers.completion)
        self._model = ChatOpenAI(
            model=section.model,
            base_url=server.base_url,
            api_key=SecretStr(server.key),
            temperature=section.temperature,
            seed=section.seed,
            max_completion_tokens=section.max_tokens if standard else None,
            reasoning_effort=section.reasoning_effort,
            service_tier=section.service_tier,
            extra_body=section.extra_body | body or None,
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

    async def ask(self, slug: str, messages: list[BaseMessage]) -> Reply:
        """The reply to `messages`, from the pool if it was given before; it is shared with the class `slug`.

        A request that fails leads to a Reply with `failure`; one that no other request can do better than
        (a wrong key, model or address) raises LTGCError.
        """
        key = self._key(messages)
        async with self._asking.setdefault(key, asyncio.Lock()):
            while True:
                if (stored := self._store.get(self._section.address, slug, key)) is not None:
                    return _judged(Reply(**{name: value for name, value in stored.items() if name in STORED}))
                try:
                    async with self.server.limits.slots:
                        return await self._pay(slug, key, messages)
                except AnsweredElsewhere:
                    continue

    async def _pay(self, slug: str, key: str, messages: list[BaseMessage]) -> Reply:
        section, budget = self._section, self._store.budget
        most = budget.question(section.model, messages, section.max_tokens)
        async with self._paced(messages) as used:
            payment = await self._store.claim(section.address, key, section.model, most)
            async with payment.under_way():
                try:
                    message = await self._model.ainvoke(messages)
                except AnsweredElsewhere:
                    raise
                except openai.OpenAIError as error:
                    failure = self.server.failure(error)
                    if failure in FINAL:
                        stored = {"model": section.model, "failure": failure}
                        await self._store.keep(payment, slug, stored, NOT_BILLED)
                    return Reply(failure=failure)
                reply = self._read(message, messages)
                used.append(reply.prompt_tokens + reply.completion_tokens)
                used_tokens = reply.prompt_tokens, reply.completion_tokens
                cached = reply.cached_tokens, reply.cache_write_tokens
                usd = budget.cost(section.model, *used_tokens, tier=reply.service_tier, cached=cached)
                outcome: Outcome = "useless" if reply.unusable else "answered"
                cost = Cost(outcome, usd, *used_tokens)
                await self._store.keep(payment, slug, {"model": section.model, **_stored(reply)}, cost)
        self.server.answered(only_thought=reply.only_thought)
        return _judged(reply)

    def _read(self, message: AIMessage, messages: list[BaseMessage]) -> Reply:
        # JSON may smuggle lone surrogates in.
        text = str(message.text)[:MAX_TEXT].encode("utf-8", "replace").decode()
        usage = message.usage_metadata
        counted = bool(usage and usage["total_tokens"])  # some servers do not count
        image_tokens = self._store.budget.image_tokens(self._section.model)
        return Reply(
            text,
            refusal=message.additional_kwargs.get("refusal"),
            finish_reason=message.response_metadata.get("finish_reason"),
            prompt_tokens=usage["input_tokens"] if usage and counted else question_tokens(messages, image_tokens),
            completion_tokens=usage["output_tokens"] if usage and counted else tokens(text),
            reasoning_tokens=_detail(usage, "output_token_details", "reasoning") if usage and counted else 0,
            cached_tokens=_detail(usage, "input_token_details", "cache_read") if usage and counted else 0,
            cache_write_tokens=_detail(usage, "input_token_details", "cache_creation") if usage and counted else 0,
            service_tier="flex" if message.response_metadata.get("service_tier") == "flex" else None,
            tokens_estimated=not counted,
        )

    def _key(self, messages: list[BaseMessage]) -> str:
        """Of everything that determines the reply: not the address, the API key, timeouts and retries.

        Made here and not from the question as LangChain serialises it, which changes with its version.
        """
        section = self._section
        determining: dict[str, Any] = {
            "model": section.model,
            "temperature": section.temperature,
            "max_tokens": section.max_tokens,
            "seed": section.seed,
        }
        # Only where they are set: the keys of replies from before there were these settings stay as they are.
        if section.reasoning_effort:
            determining["reasoning_effort"] = section.reasoning_effort
        if section.extra_body:
            determining["extra_body"] = section.extra_body
        return key_of(determining, [[m.type, _content(m.content)] for m in messages], *self.server.version)

    @asynccontextmanager
    async def _paced(self, messages: list[BaseMessage]) -> AsyncIterator[list[int]]:
        """Ask inside, when tokens_per_minute has room for the most that the reply may take; name what it took."""
        pace = self.server.limits.tokens
        used: list[int] = []
        if not pace.seconds:
            yield used
            return
        image_tokens = self._store.budget.image_tokens(self._section.model)
        reserved = question_tokens(messages, image_tokens) + self._section.max_tokens
        await pace.take(reserved)
        try:
            yield used
        finally:
            pace.give_back(reserved - sum(used))


def _stored(reply: Reply) -> dict[str, Any]:
    """A reply as the store holds it; what is seldom set is left out."""
    seldom = {"reasoning_tokens", "cached_tokens", "cache_write_tokens", "service_tier", "tokens_estimated"}
    return {
        name: value for name, value in asdict(reply).items() if name != "failure" and (value or name not in seldom)
    }


def _judged(reply: Reply) -> Reply:
    """A reply that is all thinking counts as a request that failed: no graph asks the question a second time."""
    return replace(reply, failure="only_thought") if reply.only_thought else reply


def _detail(usage: UsageMetadata, of: str, name: str) -> int:
    """Tokens of one kind; LangChain puts the service tier before its name, for example flex_reasoning."""
    details = cast(dict[str, int], usage.get(of) or {})
    return sum(tokens for kind, tokens in details.items() if kind.endswith(name))


def _content(content: Any) -> Any:
    """Images by their pixels: another Pillow packs the same pixels into other PNG bytes."""
    if isinstance(content, str):
        return content
    return [_pixels(part["image_url"]["url"]) if part["type"] == "image_url" else part["text"] for part in content]


def _pixels(data_url: str) -> list[Any]:
    image = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))).convert("RGB")
    return [image.size, hashlib.sha256(image.tobytes()).hexdigest()]
