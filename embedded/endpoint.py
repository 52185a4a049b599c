"""A local server that speaks the OpenAI HTTP API: chat with images, image generation, models.

    python -m embedded.endpoint --port 8000     # by hand; then curl http://127.0.0.1:8000/v1/models

The pipeline talks to it with the same client code as to any other server. Replies depend on nothing but the
request, so runs repeat.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from numpy.random import Generator
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from embedded import field_guide, paint_box, rates, yes_no
from embedded.styles import STYLES

_one_at_a_time = threading.Lock()  # CLIP's preprocessing and forward pass, from many request threads


class Photo(NamedTuple):
    """What a drawing starts from."""

    image: Image.Image
    strength: float  # in (0, 1]; at 1 nothing is left of the photo


class Models(Protocol):
    """A chat model and a text-to-image model. What they answer depends on their arguments alone."""

    chat: str  # their names
    t2i: str

    def reply(self, text: str, images: list[Image.Image], rng: Generator) -> str:
        """To all text of a request's messages, and the pixels of their images."""
        ...

    def paint(self, prompt: str, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
        """An image file of `size` (width, height); style: a key of STYLES."""
        ...

    def edit(self, prompt: str, photo: Photo, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
        """The same, of a photo that is changed."""
        ...


class APIError(Exception):
    """An error that the client gets in OpenAI's format."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class ChatRequest(BaseModel):
    model: str
    messages: list[Message] = Field(min_length=1)
    n: int = Field(1, ge=1, le=128)
    temperature: float = Field(1.0, ge=0, le=2)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream: bool = False


class ImageRequest(BaseModel):
    model: str
    prompt: str = Field(min_length=1)
    n: int = Field(1, ge=1, le=10)
    size: str = Field("64x64", pattern=r"^(auto|\d{2,4}x\d{2,4})$")
    seed: int | None = None
    response_format: Literal["b64_json"] = "b64_json"
    style: str | None = None


class EditRequest(ImageRequest):
    """The fields of a form. `strength` is that of diffusers' image-to-image pipelines; OpenAI has none."""

    strength: float = Field(0.8, gt=0, le=1)
    photo: str  # a digest of the file that is edited


def api_error(_: Request, error: APIError) -> JSONResponse:
    body = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, error.status)


def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    return api_error(_, APIError(f"{param}: {first['msg']}", param=param))


def make_app(ours: Models) -> FastAPI:
    """The HTTP API of two models."""
    app = FastAPI()
    app.exception_handler(APIError)(api_error)
    app.exception_handler(RequestValidationError)(invalid_request)

    def entry(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "embedded"}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry(ours.chat), entry(ours.t2i)]}

    @app.get("/v1/models/{model}")
    def model(model: str) -> dict[str, Any]:
        _check_model(model, (ours.chat, ours.t2i))
        return entry(model)

    @app.post("/v1/chat/completions")
    def chat_completions(request: ChatRequest) -> dict[str, Any]:
        return _chat(ours, request)

    @app.post("/v1/images/generations")
    def images_generations(request: ImageRequest) -> dict[str, Any]:
        return _images(ours, request, ours.paint)

    @app.post("/v1/images/edits")
    async def images_edits(request: Request) -> dict[str, Any]:
        fields = dict(await request.form())
        file = fields.pop("image", None)
        if not isinstance(file, UploadFile):
            raise APIError("image: send a file", param="image")
        data = await file.read()
        try:
            edit = EditRequest.model_validate(fields | {"photo": hashlib.sha256(data).hexdigest()})
        except ValidationError as error:
            raise RequestValidationError([e | {"loc": ("body", *e["loc"])} for e in error.errors()]) from error
        return await asyncio.to_thread(_edits, ours, edit, data)

    return app


def _chat(ours: Models, request: ChatRequest) -> dict[str, Any]:
    _check_model(request.model, (ours.chat,))
    if request.stream:
        raise APIError("streaming is not supported", param="stream")
    text, images = _question(request.messages)
    limit = request.max_completion_tokens or request.max_tokens
    choices: list[dict[str, Any]] = []
    completion_tokens = 0
    for i in range(request.n):
        reply = ours.reply(text, images, _rng(request, i))
        finish = "stop"
        if limit and _tokens(reply) > limit:
            reply, finish = reply[: 4 * limit], "length"
        completion_tokens += _tokens(reply)
        message = {"role": "assistant", "content": reply, "refusal": None}
        choices.append({"index": i, "message": message, "logprobs": None, "finish_reason": finish})
    prompt_tokens = _tokens(text) + 85 * len(images)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    head = {"id": f"chatcmpl-{_digest(request)[:24]}", "object": "chat.completion", "created": 0}
    return head | {"model": request.model, "choices": choices, "usage": usage}


def _edits(ours: Models, request: EditRequest, data: bytes) -> dict[str, Any]:
    photo = Photo(_decoded(data, "image"), request.strength)

    def edit(prompt: str, *size_style_rng: Any) -> bytes:
        return ours.edit(prompt, photo, *size_style_rng)

    return _images(ours, request, edit)


def _images(ours: Models, request: ImageRequest, paint: Callable[..., bytes]) -> dict[str, Any]:
    _check_model(request.model, (ours.t2i,))
    width, height = (64, 64) if request.size == "auto" else map(int, request.size.split("x"))
    if max(width, height) > 1024:
        raise APIError(f"size {request.size}: at most 1024x1024", param="size")
    if request.style is not None and request.style not in STYLES:
        raise APIError(f"style {request.style!r}: here there is {', '.join(STYLES)}", param="style")
    images = [paint(request.prompt, (width, height), request.style, _rng(request, i)) for i in range(request.n)]
    return {"created": 0, "data": [{"b64_json": base64.b64encode(image).decode()} for image in images]}


def _check_model(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise APIError(
            f"The model `{name}` does not exist; here: {', '.join(known)}", 404, "model", "model_not_found"
        )


def _digest(request: BaseModel) -> str:
    """Of all but the style: a prompt is painted alike in every style, and only then given it."""
    return hashlib.sha256(json.dumps(request.model_dump(exclude={"style"}), sort_keys=True).encode()).hexdigest()


def _rng(request: BaseModel, choice: int) -> Generator:
    """Randomness that the request determines."""
    return np.random.default_rng([int(_digest(request)[:16], 16), choice])


def _tokens(text: str) -> int:
    return max(1, len(text.encode()) // 4)


def _question(messages: list[Message]) -> tuple[str, list[Image.Image]]:
    """All text of the messages, and the images as pixels alone: nothing else of a file is looked at."""
    texts, images = [], []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
            continue
        for part in message.content:
            if part.get("type") == "text":
                texts.append(part["text"])
            elif part.get("type") == "image_url":
                images.append(_pixels(part["image_url"]["url"]))
            else:
                raise APIError(f"content part of type {part.get('type')!r} is not supported", param="messages")
    return "\n\n".join(texts), images


def _pixels(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise APIError("image_url: only data:image/...;base64 URLs can be read here", param="messages")
    try:
        return _decoded(base64.b64decode(data, validate=True), "messages")
    except ValueError as error:
        raise APIError("image_url: not an image", param="messages") from error


def _decoded(data: bytes, param: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (ValueError, OSError) as error:
        raise APIError(f"{param}: not an image", param=param) from error
    image.info.clear()
    return image


class Flowers:
    """The models of the embedded default."""

    chat, t2i = "field-guide", "paint-box"

    def reply(self, text: str, images: list[Image.Image], rng: Generator) -> str:
        if not images:
            return field_guide.answer(text, rng)
        from embedded.eyes import eyes  # torch, which the other questions do without

        with _one_at_a_time:
            flower = eyes().look(images[-1])
        if "which of these classes" in text.lower():
            return field_guide.identify(text, vars(flower), rng)
        if "tags:" in text.lower():
            return field_guide.tag(flower, rng)
        if "yes or no" in text:
            return yes_no.answer(text, flower, rng)
        kind = field_guide.find_species(text)
        name = kind.name if kind else "flower"
        return (field_guide.prose if rng.random() < rates.PROSE else field_guide.describe)(name, flower, rng)

    def paint(self, prompt: str, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
        return paint_box.paint(prompt, size, style, rng)

    def edit(self, prompt: str, photo: Photo, size: tuple[int, int], style: str | None, rng: Generator) -> bytes:
        from embedded.eyes import eyes

        with _one_at_a_time:
            seen = eyes().look(photo.image)
        return paint_box.edit(prompt, photo.image, seen, photo.strength, size, style, rng)


@contextmanager
def running(*command: str) -> Iterator[str]:
    """An endpoint as a process of its own on a free port of 127.0.0.1; yields its base URL.

    command: arguments of Python, of a program that calls `serve`; none: the embedded endpoint.
    The process ends with the block, and also when this process is killed: it watches its standard input.
    """
    line = [sys.executable, *(command or ("-m", "embedded.endpoint")), "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the endpoint ended with exit code {process.wait()}")
            yield url
        finally:
            process.stdin.close()
            process.terminate()


def parser() -> argparse.ArgumentParser:
    """The arguments that every endpoint takes."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible endpoint on this machine")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started it")
    return parser


def serve(app: FastAPI, args: argparse.Namespace) -> None:
    """Answer requests until the process ends. args: of `parser`."""
    try:
        listener = socket.create_server(("127.0.0.1", args.port))
    except OSError as error:
        sys.exit(f"error: port {args.port}: {error.strerror}; name another with --port, or 0 for any free one")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    if args.until_stdin_closes:

        def watch() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
    # The socket already listens: clients that connect before uvicorn accepts are queued, not refused.
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    asyncio.run(server.serve(sockets=[listener]))


app = make_app(Flowers())

if __name__ == "__main__":
    serve(app, parser().parse_args())
