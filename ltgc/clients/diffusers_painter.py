"""Drawing with our own GPUs: text-to-image pipelines of diffusers, in batches, with every image stored (Eq. 1)."""

import asyncio
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from PIL import Image

from ltgc.clients import server
from ltgc.clients.diffusers_pipeline import Painted, Wanted, lora_file
from ltgc.clients.ledger import Cost
from ltgc.clients.painter import Drawing, seed_of
from ltgc.clients.payments import AnsweredElsewhere
from ltgc.clients.pipelines import LocalPipelines
from ltgc.clients.ray_pipelines import RayPipelines
from ltgc.clients.start import Start, png
from ltgc.clients.start import key as start_key
from ltgc.clients.store import Store, key_of
from ltgc.pipeline import pins
from ltgc.pipeline.batching import Batcher
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import T2ISettings

HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
Batchers = Mapping[float | None, Batcher[Wanted, Painted]]  # by strength; None: of drawings from nothing


class DiffusersPainter:
    """A text-to-image pipeline on each GPU, loaded when the first image is not in the pool."""

    def __init__(self, section: T2ISettings, store: Store) -> None:
        self._section = section
        self._store = store
        self._identity: list[str | None] = []
        self._pipelines: LocalPipelines | RayPipelines | None = None
        self._batches: asyncio.Task[Batchers] | None = None

    async def __aenter__(self) -> Self:
        self._identity = await asyncio.to_thread(identity, self._section)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._pipelines:
            await asyncio.to_thread(self._pipelines.close)
        self._pipelines = self._batches = None  # their memory is free for what comes next

    def seed(self, class_name: str, index: int, round: int) -> int:
        return seed_of(self._section.seed, class_name, index, round)

    async def draw(self, slug: str, prompt: str, seed: int, start: Start | None = None) -> Drawing:
        """One image of `prompt`, from the pool if it was drawn before; it is shared with the class `slug`.

        The image depends on prompt, seed, pipeline, device and software (docs/models.md). Raises LTGCError for a
        pipeline that cannot draw.
        """
        key, address = self._key(prompt, seed, start), self._section.address
        while (stored := self._store.get(address, slug, key)) is None:
            try:
                stored = await self._paint_and_keep(slug, key, prompt, seed, start)
            except AnsweredElsewhere:
                continue
            break
        cut = "cut" in stored
        if "image" not in stored:
            return Drawing(seed, None, stored["failure"], refinable=True, cut=cut)
        return Drawing(seed, self._store.image(stored["image"]), cut=cut)

    def check_failures(self, failed: Mapping[str, str], asked: int, what: str) -> None:
        """As a server's."""
        where = self._section.model
        server.check_failures("t2i", where, self._section.max_failed_fraction, failed, asked, what)

    def _key(self, prompt: str, seed: int, start: Start | None) -> str:
        """Of everything that determines the image; not how it is batched, nor where the weights wait."""
        d = self._section.diffusers
        lora_scale = d.lora.scale if d.lora else None
        return key_of(
            "diffusers", self._section.model, *self._identity, d.variant, d.dtype, d.steps, d.guidance,
            d.negative_prompt, d.scheduler, lora_scale, d.vae_tiling, self._section.size, seed, prompt,
            *start_key(start),
        )  # fmt: skip

    async def _paint(self, prompt: str, seed: int, start: Start | None) -> Painted:
        if self._batches is None:
            self._batches = asyncio.create_task(asyncio.to_thread(self._start))
        batches = await asyncio.shield(self._batches)
        if start is None:
            return await batches[None](Wanted(prompt, seed))
        photo = await asyncio.to_thread(png, start, self._section.size)
        return await batches[start.strength](Wanted(prompt, seed, photo, start.strength))

    def _start(self) -> Batchers:
        d = self._section.diffusers
        if d.cluster:
            self._pipelines = RayPipelines(self._section, d.cluster, self._identity)
        else:
            self._pipelines = LocalPipelines(self._section)
        pipelines = self._pipelines
        strengths: Sequence[float | None] = self._section.start_strengths or [None]  # one for all of a batch
        return {s: Batcher(pipelines, d.batch_size, d.wait, pipelines.count) for s in strengths}

    async def _paint_and_keep(
        self, slug: str, key: str, prompt: str, seed: int, start: Start | None
    ) -> dict[str, Any]:
        name = self._section.billed_as
        usd = self._store.budget.cost(name, images=1)
        payment = await self._store.claim(self._section.address, key, name, usd)
        async with payment.under_way():
            painted = await self._paint(prompt, seed, start)
            reply = {"model": name} | ({"cut": painted.cut} if painted.cut is not None else {})
            if painted.pixels is None:
                cost = Cost("useless", usd, images=1)
                return await self._store.keep(payment, slug, reply | {"failure": "refused"}, cost)
            file = io.BytesIO()
            await asyncio.to_thread(Image.fromarray(painted.pixels).save, file, "PNG")
            cost = Cost("answered", usd, images=1)
            return await self._store.keep(payment, slug, reply, cost, file.getvalue())


def identity(section: T2ISettings) -> list[str | None]:
    """What tells the weights from others of the same name: of the pipeline, and of its LoRA or None.

    A pin in params.yaml needs no look at the weights, so what is stored can be used where they are not.
    Raises LTGCError for a hub name without a revision: the same name may be other weights tomorrow.
    """
    model, revision = section.model, section.diffusers.revision
    if Path(model).is_dir():
        revision = revision or pins.unpinned("t2i.diffusers.revision", model, pins.fingerprint(Path(model)))
    elif revision is None:
        if HUB_NAME.match(model):
            raise LTGCError(
                f"t2i.diffusers.revision: {model} is not pinned; set the commit that "
                f"https://huggingface.co/{model}/commits/main shows"
            )
        raise LTGCError(f"t2i.model: {model!r} is no folder and no hub name (organisation/name)")
    lora = section.diffusers.lora
    if lora is None:
        return [revision, None]
    path = str(lora.path)
    pin = lora.revision or pins.unpinned("t2i.diffusers.lora.revision", path, pins.fingerprint(lora_file(lora)))
    return [revision, pin]
