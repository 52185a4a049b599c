"""Drawing: the images API of any OpenAI-compatible server, with every image stored (Eq. 1)."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, cast

import openai

from ltgc.clients import drawing_tokens
from ltgc.clients.http import WrongAddress
from ltgc.clients.painter import FINAL, Drawing, seed_of, usable
from ltgc.clients.server import Server
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.settings.servers import T2ISettings


class OpenAIPainter:
    """A text-to-image model behind the images API."""

    def __init__(self, server: Server, store: Store) -> None:
        self.server = server
        self._section = cast(T2ISettings, server.section)
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
            most = budget.image_cost(section.model, *drawing_tokens.expected(section, prompt))
            async with self.server.limits.slots, budget.reserve(section.model, most):
                stored = await self._request(slug, key, prompt, seed)
        else:
            self._store.tally.cached += 1
        if "image" not in stored:
            reason = stored["failure"]
            return Drawing(seed, None, reason, refinable=reason in FINAL)
        drawing = usable(seed, self._store.read_image(stored))
        used = stored.get("prompt_tokens", 0), stored.get("completion_tokens", 0)
        return replace(drawing, prompt_tokens=used[0], image_tokens=used[1])

    def check_failures(self, failed: Mapping[str, str], asked: int, what: str) -> None:
        self.server.check_failures(failed, asked, what)

    async def _request(self, slug: str, key: str, prompt: str, seed: int) -> dict[str, Any]:
        section = self._section
        options: dict[str, Any] = {"model": section.model, "prompt": prompt, "size": section.size, "n": 1}
        options |= self._options
        if section.response_format and not section.is_gpt_image:
            options["response_format"] = section.response_format
        if section.send_seed and section.seed is not None and not section.is_gpt_image:
            options["extra_body"] = {"seed": seed}
        try:
            response = await self._client.images.generate(**options)
            data = _bytes(response)
            prompt_tokens, image_tokens = drawing_tokens.billed(response, section, prompt)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            failure = self.server.failure(error)
            if failure in FINAL:
                self._store.put(slug, key, {"model": section.model, "failure": failure})
            return {"failure": failure}
        self.server.answered()
        if data is None:
            self._store.put(slug, key, {"model": section.model, "failure": "no_image"})
        else:
            used = {"prompt_tokens": prompt_tokens, "completion_tokens": image_tokens} if image_tokens else {}
            await asyncio.to_thread(self._store.put_image, slug, key, section.model, data, **used)
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
