"""Drawing by diffusers as the stage generate does: settings, images, and what the pool holds of them."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from ltgc.clients.budget import Budget
from ltgc.clients.database import Database
from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.painter import Drawing
from ltgc.clients.store import Store
from ltgc.pipeline.settings.servers import T2ISettings

SLUG = "0000-rose"


def section(model: str, size: str = "16x16", **diffusers: Any) -> T2ISettings:
    values = {
        "backend": "diffusers", "base_url": "embedded", "model": model, "api_key_env": "NO_SUCH_KEY", "size": size,
        "send_seed": True, "seed": 0, "timeout": 5, "retries": 0, "concurrency": 1,
    }  # fmt: skip
    settings = {"dtype": "float32", "device": "cpu", "steps": 2, "guidance": 5.0, "batch_size": 2} | diffusers
    return T2ISettings.model_validate(values | {"diffusers": settings})


def draw(
    settings: T2ISettings, folder: Path, *items: tuple[Any, ...], budget: Budget | None = None
) -> list[Drawing]:
    os.environ["LTGC_CACHE"] = f"{folder} pool"  # the fixture pool_folder sets it back

    async def all_of_them() -> list[Drawing]:
        with Store(folder, [settings], budget) as store:
            async with DiffusersPainter(settings, store) as painter:
                return await asyncio.gather(*(painter.draw(SLUG, *item) for item in items))

    return asyncio.run(all_of_them())


def lines(folder: Path) -> list[dict]:
    """All replies in the pool of the folder."""
    return [
        json.loads(reply) for (reply,) in Database(Path(f"{folder} pool"), "").rows("SELECT reply FROM replies")
    ]
