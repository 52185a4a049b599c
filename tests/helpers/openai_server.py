"""A small OpenAI-compatible server over real HTTP: it says what a test tells it to, and keeps what it is asked."""

import asyncio
import base64
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse


@dataclass(frozen=True)
class Fault:
    """An HTTP error in OpenAI's format."""

    status: int
    code: str | None = None
    message: str = "it is broken"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """A body of the test's own, with status 200."""

    value: Any


class Reset:
    """The connection ends in the middle of the reply."""


class Hang:
    """A reply that begins and does not go on."""


@dataclass(frozen=True)
class Drip:
    """A reply that never ends: a byte every so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Raw:
    """Any bytes at all."""

    data: bytes
    media_type: str = "application/json"
    status: int = 200


def stream(text: str, usage: bool = True, finish_reason: str = "stop") -> Raw:
    """`text` word by word, as servers send it that are asked to stream."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
        return f"data: {json.dumps(chunk | more)}\n\n"

    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in re.findall(r"\S+\s*", text))]
    events = [event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    events.append(event([{"index": 0, "delta": {}, "finish_reason": finish_reason}]))
    if usage:
        events.append(event([], usage={"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}))
    return Raw(("".join(events) + "data: [DONE]\n\n").encode(), "text/event-stream")


def said(request: dict[str, Any]) -> str:
    """All text of a chat request."""
    texts = []
    for message in request["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)


class Script:
    """What the server answers: first `replies`, in turn; then what `chat` and `image` say to the request."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.reset()

    def reset(self) -> None:
        self.chat: Callable[[dict[str, Any]], Any] = lambda request: Fault(500)
        self.image: Callable[[dict[str, Any]], Any] = lambda request: Fault(500)
        self.models: Any = Body({"object": "list", "data": [{"id": "m", "object": "model"}]})
        self.replies: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0

    @property
    def calls(self) -> int:
        return len(self.requests)


def chat_body(
    reply: str | None,
    finish_reason: str = "stop",
    refusal: str | None = None,
    counted: bool = True,
    thinking: int = 0,
    service_tier: str | None = None,
) -> Body:
    """counted: with the tokens used; some servers leave them out. thinking: tokens, besides the reply's 3."""
    message = {"role": "assistant", "content": reply, "refusal": refusal}
    usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 3 + thinking, "total_tokens": 13 + thinking}
    if thinking:
        usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
    choices = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    if service_tier:
        body["service_tier"] = service_tier
    return Body(body | {"usage": usage} if counted else body)


@contextmanager
def openai_server() -> Iterator[Script]:
    listener = socket.create_server(("127.0.0.1", 0))
    script = Script(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    app = FastAPI()
    under_way = 0

    async def answer(request: Request, answerer: str) -> Response:
        nonlocal under_way
        under_way += 1
        script.most_at_once = max(script.most_at_once, under_way)
        try:
            form = "multipart" in request.headers["content-type"]
            question = await _form(request) if form else await request.json()
            script.requests.append(question)
            script.keys.add(request.headers.get("authorization", ""))
            script.headers.append(dict(request.headers))
            reply = script.replies.pop(0) if script.replies else getattr(script, answerer)(question)
            return _response(reply)
        finally:
            under_way -= 1

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, "chat")

    @app.post("/v1/images/generations")
    async def image(request: Request) -> Response:
        return await answer(request, "image")

    @app.post("/v1/images/edits")
    async def edit(request: Request) -> Response:
        return await answer(request, "image")

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        script.keys.add(request.headers.get("authorization", ""))
        return _response(script.models)

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield script
    finally:
        server.should_exit = True
        thread.join()


async def _form(request: Request) -> dict[str, Any]:
    """The fields of a form; of a file its bytes."""
    fields = await request.form()
    return {name: field if isinstance(field, str) else await field.read() for name, field in fields.items()}


def _response(reply: Any) -> Response:
    if isinstance(reply, Fault):
        error = {"message": reply.message, "type": "error", "param": None, "code": reply.code}
        return JSONResponse({"error": error}, reply.status, reply.headers)
    if isinstance(reply, Raw):
        return Response(reply.data, reply.status, media_type=reply.media_type)
    if isinstance(reply, Reset | Hang | Drip):

        async def torn() -> AsyncIterator[bytes]:
            yield b'{"id": '
            if isinstance(reply, Hang):
                await asyncio.Event().wait()  # until the client has gone
            while isinstance(reply, Drip):
                await asyncio.sleep(reply.seconds)
                yield b" "

        return StreamingResponse(torn(), headers={"content-length": "1000"}, media_type="application/json")
    if isinstance(reply, bytes):
        reply = Body({"created": 0, "data": [{"b64_json": base64.b64encode(reply).decode()}]})
    elif isinstance(reply, str) or reply is None:
        reply = chat_body(reply)
    return Response(json.dumps(reply.value), media_type="application/json")
