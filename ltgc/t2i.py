"""Drawing: the images API of any OpenAI-compatible server, with every image stored (Eq. 1)."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import openai

from ltgc import images, params
from ltgc.server import Server, WrongAddress
from ltgc.store import Store, key_of

MAX_BYTES = 20_000_000
MIN_SIDE = 2  # pixels
FINAL = ("refused", "no_image", "too_long")  # verdicts on the prompt: asking again would not change them


@dataclass(frozen=True)
class Drawing:
    """What the T2I model drew, or why there is no usable image."""

    seed: int
    image: bytes | None  # as it came
    reason: str | None = None
    refinable: bool = False  # another description may do better: the model refused this one, or drew no image
    cut: bool = False  # the prompt was longer than the model reads, and so was not read to its end


def seed_of(seed: int | None, class_name: str, index: int, round: int) -> int:
    """The seed of one drawing, in [0, 2**31): t2i.seed, the class, its description and the refinement decide.

    The class's name and not its label: a class more in the data set leaves the others' images as they are.
    """
    text = f"{seed or 0}\n{index}\n{round}\n{class_name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) & 0x7FFF_FFFF


class OpenAIPainter:
    """A text-to-image model behind the images API."""

    def __init__(self, server: Server, store: Store) -> None:
        self.server = server
        self._section = cast(params.T2I, server.section)
        self._store = store
        self._client = server.client()
        options = {"quality": self._section.quality, "style": self._section.style}
        self._options = {name: value for name, value in options.items() if value is not None}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    def seed(self, class_name: str, index: int, round: int) -> int:
        return seed_of(self._section.seed, class_name, index, round)

    async def draw(self, slug: str, prompt: str, seed: int) -> Drawing:
        """One image of `prompt`, from the store if it was drawn before; the file belongs to the class `slug`.

        Raises LTGCError when no other request can do better (a wrong key, model or address).
        """
        section = self._section
        # The seed counts even where it is not sent: it tells a second drawing of one prompt from the first.
        more = [self._options] if self._options else []
        key = key_of("image", section.model, section.size, section.send_seed, seed, prompt, *more)
        stored = self._store.get(key)
        if stored is None:
            budget = self._store.budget
            async with self.server.limits.slots, budget.reserve(section.model, budget.image_cost(section.model)):
                stored = await self._request(slug, key, prompt, seed)
        else:
            self._store.tally.cached += 1
        if "image" not in stored:
            reason = stored["failure"]
            return Drawing(seed, None, reason, refinable=reason in FINAL)
        return _usable(seed, self._store.read_image(stored))

    def check_failures(self, failed: Mapping[str, str], asked: int, what: str) -> None:
        self.server.check_failures(failed, asked, what)

    async def _request(self, slug: str, key: str, prompt: str, seed: int) -> dict[str, Any]:
        section = self._section
        options: dict[str, Any] = {"model": section.model, "prompt": prompt, "size": section.size, "n": 1}
        options |= self._options
        if section.response_format:
            options["response_format"] = section.response_format
        if section.send_seed and section.seed is not None:
            options["extra_body"] = {"seed": seed}
        try:
            response = await self._client.images.generate(**options)
            data = _bytes(response)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            failure = self.server.failure(error)
            if failure in FINAL:
                self._store.put(slug, key, {"model": section.model, "failure": failure})
            return {"failure": failure}
        self.server.answered()
        if data is None:
            self._store.put(slug, key, {"model": section.model, "failure": "no_image"})
        else:
            await asyncio.to_thread(self._store.put_image, slug, key, section.model, data)
        return self._store.get(key) or {"failure": "no_image"}


def _bytes(response: Any) -> bytes | None:
    """The first image's bytes; None where there is none. Raises ValueError for what is no base64.

    Raises WrongAddress for an image that is to be fetched from elsewhere: such links expire, and an address that
    a server names is not one to be trusted.
    """
    image = response.data[0] if response.data else None
    encoded = image.b64_json if image else None
    if image and not encoded and image.url:
        raise WrongAddress(
            "response_format: the server sent a link, not the image; set b64_json, or name a server that sends it"
        )
    try:
        return base64.b64decode(encoded, validate=True) if encoded else None
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _usable(seed: int, data: bytes) -> Drawing:
    if len(data) > MAX_BYTES:
        return Drawing(seed, None, f"unusable_image: over {MAX_BYTES:,} bytes", refinable=True)
    try:
        image = images.decode(data)
    except images.BadImage as error:
        return Drawing(seed, None, f"unusable_image: {error}", refinable=True)
    if min(image.size) < MIN_SIDE:
        return Drawing(seed, None, f"unusable_image: {image.width} x {image.height} pixels", refinable=True)
    return Drawing(seed, data)
