"""LangChain's LLM cache over a Store: a reply is stored under what determines it, and found again."""

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, Generation
from PIL import Image

from ltgc.clients import limits
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.errors import LTGCError

MAX_TEXT = 200_000  # characters kept of one reply; graphs/parse.py reads no more


class ChatCache(BaseCache):
    """LangChain's LLM cache over a Store, for one question.

    Not part of the key: address, API key, timeouts, retries. The key is made here and not from the question as
    LangChain serialises it, which changes with its version.
    """

    def __init__(self, store: Store, slug: str, messages: list[BaseMessage], determining: dict[str, Any]) -> None:
        self.store = store
        self.slug = slug
        self.model = determining["model"]
        self.max_tokens = determining["max_tokens"]
        self._messages = messages
        self.key = key_of(determining, [[m.type, _content(m.content)] for m in messages])

    @asynccontextmanager
    async def paid(self) -> AsyncIterator[None]:
        """Ask the question inside: what it can cost at most is reserved, unless its reply is here."""
        budget = self.store.budget
        if not (budget.capped or budget.lost) or self.store.get(self.key) is not None:
            yield
            return
        async with budget.reserve(self.model, budget.question(self.model, self._messages, self.max_tokens)):
            yield

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        reply = self.store.get(self.key)
        if reply is None:
            return None
        self.store.tally.cached += 1
        message = AIMessage(
            reply["text"],
            additional_kwargs={"refusal": reply["refusal"]},
            response_metadata={
                "finish_reason": reply["finish_reason"],
                "usage_estimated": reply.get("tokens_estimated", False),
            },
            usage_metadata=_usage(reply["prompt_tokens"], reply["completion_tokens"]),
        )
        return [ChatGeneration(message=message)]

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        message = return_val[0].message
        message.content = message.text[:MAX_TEXT]
        usage = message.usage_metadata
        if not usage or not usage["total_tokens"]:  # some servers do not count
            prompt_tokens = limits.question_tokens(self._messages, self.store.budget.image_tokens(self.model))
            usage = _usage(prompt_tokens, limits.tokens(message.text))
            message.usage_metadata = usage
            message.response_metadata["usage_estimated"] = True
        reply = {
            "model": self.model,
            "text": message.text,
            "refusal": message.additional_kwargs.get("refusal"),
            "finish_reason": message.response_metadata.get("finish_reason"),
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
        }
        if "usage_estimated" in message.response_metadata:
            reply["tokens_estimated"] = True
        self.store.put(self.slug, self.key, reply)

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        return self.lookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Any) -> None:
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        raise LTGCError(f"{self.store.folder}: paid replies are not cleared; delete the folder by hand")


def _usage(prompt_tokens: int, completion_tokens: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=prompt_tokens, output_tokens=completion_tokens, total_tokens=prompt_tokens + completion_tokens
    )


def _content(content: Any) -> Any:
    """Images by their pixels: another Pillow packs the same pixels into other PNG bytes."""
    if isinstance(content, str):
        return content
    return [_pixels(part["image_url"]["url"]) if part["type"] == "image_url" else part["text"] for part in content]


def _pixels(data_url: str) -> list[Any]:
    image = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))).convert("RGB")
    return [image.size, hashlib.sha256(image.tobytes()).hexdigest()]
