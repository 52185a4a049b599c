"""Writing artifacts: whole or not at all, also after a power cut."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import Finding

FINDING = Finding(kind="bad", path="a.jpg", reason="empty")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "x"),
        lambda path: files.write_chunks(path, [b"x", b"y"]),
        lambda path: files.write_json(path, {"x": 1}),
        lambda path: files.write_jsonl(path, [FINDING]),
        lambda path: files.write_csv(path, [{"x": 1}], ["x"]),
        lambda path: files.write_records_csv(path, [FINDING], Finding),
    ],
    ids=["text", "chunks", "json", "jsonl", "csv", "records"],
)
def test_what_is_written_is_synced_before_it_takes_its_name_and_then_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    path, synced = tmp_path / "artifact", []
    fsync = os.fsync

    def watched(file: int) -> None:
        synced.append(("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file", path.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    write(path)
    assert synced == [("file", False), ("folder", True)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["artifact"]
