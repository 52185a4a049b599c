"""Shards of generated images: the same bytes each time, read at random by many at once, listed, previewed."""

import io
import os
import random
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from ltgc.commands import shards as command
from ltgc.data import images, shards
from ltgc.data.synthetic import marked
from ltgc.pipeline.artifacts.drawings import Attempt
from ltgc.pipeline.errors import LTGCError

PROMPT = "A photo of the class [red]rose[/red]"


def picture(index: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), (index, 0, 0)).save(out, "PNG")
    return out.getvalue()


def members(shard: Path, count: int) -> list[tuple[str, bytes]]:
    pairs = []
    for index in range(count):
        attempt = Attempt(
            id=f"0001-rose/{index:04d}-0", label=1, class_name="rose", index=index, round=0, prompt=PROMPT, seed=0,
            image=f"{shard}/{index:04d}-0.png", score=index / 1000, threshold=0.5, verdict="accepted",
            refines=None, reason=None,
        )  # fmt: skip
        pairs += [
            (f"{index:04d}-0.png", picture(index)),
            (f"{index:04d}-0.json", attempt.model_dump_json().encode()),
        ]
    return pairs


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "accepted" / "0001-rose.tar"
    shards.write(path, members(path, 60))
    return path


def test_the_same_members_give_the_same_bytes_at_any_time_and_for_any_user(shard: Path) -> None:
    first = shard.read_bytes()
    shards.write(shard, members(shard, 60))
    assert shard.read_bytes() == first
    with tarfile.open(shard) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}
        assert tar.getnames() == shards.names(shard)
        assert tar.extractfile("0007-0.png").read() == picture(7)  # type: ignore[union-attr]


def test_a_write_that_fails_leaves_the_shard_as_it_was(shard: Path) -> None:
    before = shard.read_bytes()

    def torn():
        yield "0000-0.png", picture(1)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        shards.write(shard, torn())
    assert shard.read_bytes() == before


def test_threads_and_forked_workers_read_members_and_plain_files_by_reference(shard: Path) -> None:
    plain = shard.parent / "plain.png"
    plain.write_bytes(picture(99))
    order = random.Random(0).choices(range(60), k=500)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(images.read, [f"{shard}/{i:04d}-0.png" for i in order])) == [
            picture(i) for i in order
        ]
        assert images.read(plain) == picture(99)
    child = os.fork()
    if child == 0:  # with the parent's index
        os._exit(0 if all(images.read(shard / f"{i:04d}-0.png") == picture(i) for i in order) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert images.load(shard / "0042-0.png").getpixel((0, 0)) == (42, 0, 0)


def test_a_shard_that_is_written_anew_is_read_anew(shard: Path) -> None:
    assert images.read(shard / "0001-0.png") == picture(1)
    shards.write(shard, [("0001-0.png", picture(2))])
    assert images.read(shard / "0001-0.png") == picture(2)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{shard}: has no 0003-0.png")):
        images.read(shard / "0003-0.png")


@pytest.mark.parametrize("damage", ["cut in a header", "cut in an image", "flipped", "no tar"])
def test_a_damaged_shard_is_named(shard: Path, damage: str) -> None:
    data = shard.read_bytes()
    broken = {
        "cut in a header": data[:1030],
        "cut in an image": data[:560],
        "flipped": data[:1024] + b"x" + data[1025:],
        "no tar": b"no tar" * 500,
    }
    shard.write_bytes(broken[damage])
    with pytest.raises(LTGCError, match=re.escape(f"{shard}: not a whole shard")):
        images.read(shard / "0001-0.png")


def test_a_member_that_would_leave_its_folder_is_refused(shard: Path, tmp_path: Path) -> None:
    shards.write(shard, [("../../escaped.png", picture(1))])
    with pytest.raises(LTGCError, match="not a whole shard of plain files"):
        command.extract([shard], tmp_path / "out")
    assert not list(tmp_path.rglob("escaped.png"))


def test_the_command_lists_extracts_and_previews(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.show([shard])
    out = capsys.readouterr().out
    assert "0041-0.png" in out and "0.041" in out and PROMPT in out  # as it is, not as markup
    command.extract([shard], tmp_path / "out")
    assert (tmp_path / "out/0001-rose/0059-0.png").read_bytes() == picture(59)
    assert len(list((tmp_path / "out/0001-rose").iterdir())) == 120
    command.preview([shard, shard], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        reds = {pixel for _, pixel in sheet.convert("RGB").getcolors(2**24) if pixel[1:] == (0, 0)}
    assert {(58, 0, 0), (2, 0, 0)} <= reds and len(reds) <= 48  # spread over the shard


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LTGCError, match=r"no\.tar: not there"):
        command.show([tmp_path / "no.tar"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_drawing_is_marked_as_synthetic_and_keeps_its_pixels(kind):
    file = io.BytesIO()
    Image.effect_mandelbrot((16, 12), (-2, -1, 1, 1), 9).convert("RGB").save(file, kind)
    data = marked(file.getvalue())
    image = Image.open(io.BytesIO(data))
    assert b"trainedAlgorithmicMedia" in (image.info.get("xmp") or image.text["XML:com.adobe.xmp"].encode())
    assert image.tobytes() == Image.open(file).tobytes()
    assert marked(data) == data and marked(b"RIFF....WEBP") == b"RIFF....WEBP"
