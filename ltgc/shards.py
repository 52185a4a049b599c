"""Generated images in WebDataset-style tar files, one a class, each image with its Attempt as JSON beside it.

python -m ltgc.shards list SHARD...               verdict, score and prompt of each image
python -m ltgc.shards extract SHARD... FOLDER     the files, in one folder a shard
python -m ltgc.shards preview SHARD... SHEET.png  a contact sheet, score under each image

The same members give the same bytes, so DVC sees a class as changed only when it did.
"""

import functools
import io
import math
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ltgc import artifacts, stage
from ltgc.artifacts import Attempt
from ltgc.errors import LTGCError

END = bytes(2 * tarfile.BLOCKSIZE)  # of a whole tar
COLUMNS, SIDE, MARGIN = 12, 96, 8  # of a contact sheet: images a row, and pixels
SHOWN = 4 * COLUMNS  # images of a shard on a contact sheet, spread over all of them


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, data) pairs as a tar, in their order. Whole or not at all, and the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # mode 0644, nobody's, of time 0
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    part.replace(path)


def read(path: Path, name: str) -> bytes:
    """One member, at its offset. Raises FileNotFoundError, and LTGCError where `path` is no whole tar.

    Threads and forked workers may read at once: no position in the file is shared.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        stat = os.fstat(file)
        index = _index(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if name not in index:
            raise FileNotFoundError(f"{path}: has no {name}")
        offset, size = index[name]
        return os.pread(file, size, offset)
    finally:
        os.close(file)


def names(path: Path) -> list[str]:
    """The members' names in their order. Raises FileNotFoundError, and LTGCError where `path` is no whole tar."""
    stat = path.stat()
    return list(_index(path, stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.cache
def _index(path: Path, *version: int) -> dict[str, tuple[int, int]]:
    """name -> (offset, size) of the tar at `path`, in bytes; read once a process and version of the file."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = list(tar)
            file.seek(tar.offset)  # tarfile takes any block that it cannot read for the end, but the first
            if file.read(len(END)) != END:
                raise tarfile.ReadError("broken or cut off")
    except tarfile.TarError as error:
        raise LTGCError(f"{path}: not a whole tar file ({error}); run `dvc pull {path.parent}`") from error
    for member in members:
        if not member.isreg() or Path(member.name).name != member.name:
            raise LTGCError(f"{path}: {member.name!r} is no plain file; shards hold images and their JSON only")
    return {member.name: (member.offset_data, member.size) for member in members}


# --- the command line -----------------------------------------------------------------------------------


def attempts(path: Path) -> Iterator[tuple[Attempt, str]]:
    """The records of a shard, each with its image's name."""
    for name in names(path):
        if name.endswith(".json"):
            try:
                attempt = Attempt.model_validate_json(read(path, name))
            except ValidationError as error:
                raise LTGCError(f"{path}/{name}: not an Attempt; run `dvc repro generate`") from error
            yield attempt, Path(attempt.image or "").name


def show(*shards: str) -> None:
    table = Table("image", "verdict", "score", "prompt")
    for shard in map(Path, shards):
        for attempt, name in attempts(shard):
            table.add_row(*map(escape, (f"{shard}/{name}", attempt.verdict, _score(attempt), attempt.prompt)))
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def extract(*shards_and_folder: str) -> None:
    *shards, folder = map(Path, shards_and_folder)
    for shard in shards:
        for name in names(shard):
            artifacts.write_bytes(folder / shard.stem / name, read(shard, name))


def preview(*shards_and_sheet: str) -> None:
    *shards, sheet = map(Path, shards_and_sheet)
    font, line = ImageFont.load_default(12), 16
    tiles: list[tuple[int, int, Image.Image | None, str]] = []  # x, y, image, the text below it
    y = MARGIN
    for shard in shards:
        whole = list(attempts(shard))
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
    stage.console.print(f"{sheet}: {picture.width} x {picture.height} pixels")


def _score(attempt: Attempt) -> str:
    return "–" if attempt.score is None else f"{attempt.score:.3f}"


COMMANDS = {"list": (show, 1), "extract": (extract, 2), "preview": (preview, 2)}  # and the fewest paths it takes


def main(command: str = "", *paths: str) -> None:
    function, fewest = COMMANDS.get(command, (show, 1))
    if command not in COMMANDS or len(paths) < fewest:
        raise LTGCError(
            "usage: python -m ltgc.shards list SHARD... | extract SHARD... FOLDER | preview SHARD... SHEET.png"
        )
    try:
        function(*paths)
    except FileNotFoundError as error:
        raise LTGCError(f"{error.filename or error}: not there; shards are generated/*/<class>.tar") from error


if __name__ == "__main__":
    stage.run(main)
