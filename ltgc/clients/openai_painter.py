"""Drawing: the images API of any OpenAI-compatible server, with every image stored (Eq. 1)."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, cast

import openai

from ltgc.clients import answers, drawing_tokens
from ltgc.clients.http import WrongAddress
from ltgc.clients.ledger import NOT_BILLED, Cost
from ltgc.clients.painter import FINAL, UNUSABLE, Drawing, seed_of, usable
from ltgc.clients.payments import AnsweredElsewhere
from ltgc.clients.server import Server
from ltgc.clients.start import Start, png
from ltgc.clients.start import key as start_key
from ltgc.clients.store import Store, key_of
from ltgc.pipeline.settings.servers import T2ISettings


class OpenAIPainter:
    """A text-to-image model behind the images API."""

    def __init__(self, server: Server, store: Store) -> None:
        self.server = server
        self._section = cast(T2ISettings, server.section)
        self._store = store
        self._client = server.client(answers.drawings)
        options = {"quality": self._section.quality, "style": self._section.style}
        self._options = {name: value for name, value in options.items() if value is not None}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    def seed(self, class_name: str, index: int, round: int) -> int:
        return seed_of(self._section.seed, class_name, index, round)

    async def draw(self, slug: str, prompt: str, seed: int, start: Start | None = None) -> Drawing:
        """One image of `prompt`, from the pool if it was drawn before; it is shared with the class `slug`.

        start: the photo that it edits. Its strength is sent as `strength`, which is no field of OpenAI's own API.
        Raises LTGCError when no other request can do better (a wrong key, model or address).
        """
        section = self._section
        # The seed counts even where it is not sent: it tells a second drawing of one prompt from the first.
        more = [*([self._options] if self._options else []), *start_key(start)]
        key = key_of(
            "image", section.model, section.size, section.send_seed, seed, prompt, *more, *self.server.version
        )
        while (stored := self._store.get(section.address, slug, key)) is None:
            try:
                async with self.server.limits.slots:
                    stored = await self._pay(slug, key, prompt, seed, start)
                break
            except AnsweredElsewhere:
                continue
        if "image" not in stored:
            reason = stored["failure"]
            return Drawing(seed, None, reason, refinable=reason in FINAL or reason.startswith(UNUSABLE))
        drawing = usable(seed, self._store.image(stored["image"]))
        used = stored.get("prompt_tokens", 0), stored.get("completion_tokens", 0)
        return replace(drawing, prompt_tokens=used[0], image_tokens=used[1])

    def check_failures(self, failed: Mapping[str, str], asked: int, what: str) -> None:
        self.server.check_failures(failed, asked, what)

    async def _pay(self, slug: str, key: str, prompt: str, seed: int, start: Start | None) -> dict[str, Any]:
        model, store = self._section.model, self._store
        photo = await asyncio.to_thread(png, start, self._section.size) if start else None
        most = store.budget.cost(model, *drawing_tokens.expected(self._section, prompt), images=1)
        payment = await store.claim(self._section.address, key, model, most)
        async with payment.under_way():
            try:
                options = self._options_of(prompt, seed)
                if start and photo:
                    response = await self._client.images.edit(**_of_edit(options, photo, start.strength))
                else:
                    response = await self._client.images.generate(**options)
                data = _bytes(response)
            except AnsweredElsewhere:
                raise
            except openai.OpenAIError as error:
                failure = self.server.failure(error)
                if failure not in FINAL:
                    return {"failure": failure}
                return await store.keep(payment, slug, {"model": model, "failure": failure}, NOT_BILLED)
            self.server.answered()
            used = drawing_tokens.billed(response, self._section, prompt)
            usd = store.budget.cost(model, *used, images=1)
            drawing = usable(seed, data) if data is not None else None
            if data is None or drawing is None or drawing.image is None:
                reason = drawing.reason if drawing else "no_image"
                return await store.keep(
                    payment, slug, {"model": model, "failure": reason}, Cost("useless", usd, *used, images=1)
                )
            # Only where they are billed: other drawings are kept as they were before there were such models.
            counts = {"prompt_tokens": used[0], "completion_tokens": used[1]} if used[1] else {}
            return await store.keep(
                payment, slug, {"model": model, **counts}, Cost("answered", usd, *used, images=1), data
            )

    def _options_of(self, prompt: str, seed: int) -> dict[str, Any]:
        section = self._section
        options: dict[str, Any] = {"model": section.model, "prompt": prompt, "size": section.size, "n": 1}
        options |= self._options
        if section.response_format and not section.is_gpt_image:
            options["response_format"] = section.response_format
        if section.send_seed and section.seed is not None and not section.is_gpt_image:
            options["extra_body"] = {"seed": seed}
        return options


def _of_edit(options: dict[str, Any], photo: bytes, strength: float) -> dict[str, Any]:
    """The options of a generation as those of an edit, which has fewer fields of its own."""
    more = options.pop("extra_body", {}) | {"strength": strength}
    more |= {name: options.pop(name) for name in ("style",) if name in options}
    return options | {"image": ("photo.png", photo, "image/png"), "extra_body": more}


def _bytes(response: Any) -> bytes | None:
    """The first image's bytes; None where there is none. Raises WrongAddress for an image that is to be fetched.

    Such links expire, and an address that a server names is not one to be trusted.
    """
    image = response.data[0] if response.data else None
    encoded = image.b64_json if image else None
    if image and not encoded and image.url:
        raise WrongAddress(
            "response_format: the server sent a link, not the image; set b64_json, or name a server that sends it"
        )
    try:
        return base64.b64decode(encoded, validate=True) if encoded else None
    except ValueError:  # no base64: no image can be read of it
        return b""
