"""A pool that is read-only or whose disk is full: one line before anything is paid, and nothing paid is lost.

Where root runs the tests, which permissions do not bind, its process gives that power up; and disks are small
ones in memory that root mounts. Others skip what needs mounting.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.openai_server import Script, said
from helpers.paid_calls import ask, draw
from helpers.server_settings import KEY, chat_section, png, t2i_section

from ltgc.clients.database import FILE
from ltgc.clients.pool import LEAST_FREE
from ltgc.pipeline.errors import LTGCError

MIB = 2**20
REPLY = 200_000  # bytes


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    running_server.chat = lambda request: f"{said(request)} {'x' * REPLY}"
    running_server.image = lambda request: png()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


@pytest.fixture
def permissions_hold() -> Iterator[None]:
    """They bind this thread, and those that it starts, even if it is root's: it gives up CAP_DAC_OVERRIDE."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    version_3_of_this_thread = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # of bits: first the effective ones
    libc.capget(version_3_of_this_thread, sets)
    before = sets[0]
    sets[0] = before & ~(1 << 1)
    libc.capset(version_3_of_this_thread, sets)
    yield
    sets[0] = before
    libc.capset(version_3_of_this_thread, sets)


@pytest.fixture
def disk(pool_folder: Path) -> Iterator[Path]:
    """A disk of a little more than the least room, as the folder of the pool."""
    if mount("-t", "tmpfs", "-o", f"size={LEAST_FREE + MIB}", "none", pool_folder):
        pytest.skip("may not mount")
    yield pool_folder
    subprocess.run(["umount", "--lazy", pool_folder], check=True)


def mount(*arguments: str | Path) -> int:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL).returncode


def refused(script: Script, folder: Path, names: Path, remedy: str) -> None:
    """A question and a drawing end in one line that names the file and the remedy, and nothing is asked."""
    calls = script.calls
    for pay in (
        lambda: ask(chat_section(script), folder, "another"),
        lambda: draw(t2i_section(script), folder, ("a rose", 7)),
    ):
        with pytest.raises(LTGCError, match=remedy) as error:
            pay()
        assert str(names) in str(error.value) and "\n" not in str(error.value)
    assert script.calls == calls


@pytest.mark.parametrize("what", ["", FILE, "images"])
def test_a_pool_that_is_read_only_is_one_line_before_anything_is_paid(
    script, tmp_path, pool_folder, permissions_hold, what
):
    ask(chat_section(script), tmp_path / "store", "a")
    path = pool_folder / what
    path.chmod(path.stat().st_mode & ~0o222)
    refused(script, tmp_path / "store", pool_folder, r"LTGC_CACHE: .*make it writable, or name another folder$")
    path.chmod(path.stat().st_mode | 0o200)
    ask(chat_section(script), tmp_path / "store", "a")
    assert script.calls == 1


def test_a_disk_that_is_mounted_read_only_is_one_line_before_anything_is_paid(script, tmp_path, disk):
    ask(chat_section(script), tmp_path / "store", "a")
    assert mount("-o", "remount,ro", disk) == 0
    refused(script, tmp_path / "store", disk, r"LTGC_CACHE: .*make it writable, or name another folder$")


def test_a_full_disk_is_one_line_before_anything_is_paid(script, tmp_path, disk):
    (disk / "full").write_bytes(bytes(MIB))
    with (disk / "full").open("ab") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(MIB))
            file.flush()
    refused(script, tmp_path / "store", disk, r"free some space or quota, or name another folder$")
    (disk / "full").write_bytes(bytes(2 * MIB))
    refused(script, tmp_path / "store", disk, r"less than 64 MiB of disk are free, .* name another folder")


def test_a_disk_that_fills_up_stops_the_stage_while_every_reply_still_finds_room(script, tmp_path, disk):
    section = chat_section(script, concurrency=1)
    with pytest.raises(LTGCError, match=r"less than 64 MiB of disk are free"):
        ask(section, tmp_path / "store", *map(str, range(20)))
    paid = script.calls
    assert 1 < paid < 20
    assert mount("-o", f"remount,size={2 * LEAST_FREE}", disk) == 0
    ask(section, tmp_path / "store", *map(str, range(20)))
    assert script.calls == 20
