"""Generated images in shards: list them, extract them, look at them."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.markup import escape
from rich.table import Table

from ltgc.data.shards import attempts, names, read
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console, output

COLUMNS, SIDE, MARGIN = 12, 96, 8  # of a contact sheet: images a row, and pixels
SHOWN = 4 * COLUMNS  # images of a shard on a contact sheet, spread over all of them


def show(shards: Sequence[Path]) -> None:
    table = Table("image", "verdict", "score", "prompt")
    for shard in shards:
        for attempt, name in attempts(_existing(shard)):
            table.add_row(*map(escape, (f"{shard}/{name}", attempt.verdict, _score(attempt), attempt.prompt)))
    output(240).print(table)


def extract(shards: Sequence[Path], folder: Path) -> None:
    for shard in shards:
        for name in names(_existing(shard)):
            files.write_bytes(folder / shard.stem / name, read(shard, name))


def preview(shards: Sequence[Path], sheet: Path) -> None:
    font, line = ImageFont.load_default(12), 16
    tiles: list[tuple[int, int, Image.Image | None, str]] = []  # x, y, image, the text below it
    y = MARGIN
    for shard in shards:
        whole = list(attempts(_existing(shard)))
        pairs = whole[:: max(1, math.ceil(len(whole) / SHOWN))]
        tiles.append((MARGIN, y - SIDE, None, f"{shard.parent.name}/{shard.stem}: {len(pairs)} of {len(whole)}"))
        y += line
        for index, (attempt, name) in enumerate(pairs):
            image = ImageOps.contain(Image.open(io.BytesIO(read(shard, name))).convert("RGB"), (SIDE, SIDE))
            row, column = divmod(index, COLUMNS)
            x = MARGIN + column * (SIDE + MARGIN)
            tiles.append((x, y + row * (SIDE + line), image, _score(attempt)))
        y += math.ceil(len(pairs) / COLUMNS) * (SIDE + line) + MARGIN
    picture = Image.new("RGB", (MARGIN + COLUMNS * (SIDE + MARGIN), y), "white")
    draw = ImageDraw.Draw(picture)
    for x, top, tile, text in tiles:
        if tile is not None:
            picture.paste(tile, (x, top))
        draw.text((x, top + SIDE), text, "black", font)
    picture.save(sheet)
    console.print(f"{sheet}: {picture.width} x {picture.height} pixels")


def _score(attempt: Attempt) -> str:
    return "–" if attempt.score is None else f"{attempt.score:.3f}"


def _existing(shard: Path) -> Path:
    if not shard.exists():
        raise LTGCError(f"{shard}: not there; shards are generated/*/<class>.tar")
    return shard
