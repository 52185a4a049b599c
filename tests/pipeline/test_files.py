"""Writing artifacts: whole or not at all, also after a power cut."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import Finding

ROOT = Path(__file__).parents[2]
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


def test_what_a_killed_process_left_half_written_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    dies = "import os; from pathlib import Path; from ltgc.pipeline import files\n"
    dies += "with files.replaced_file(Path('old')), files.replaced_folder(Path('older')): os._exit(0)"
    subprocess.run(
        [sys.executable, "-c", dies], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )
    living = tmp_path / f".busy.{os.getppid()}-1.part"
    living.touch()
    assert len(list(tmp_path.iterdir())) == 3
    files.write_text(tmp_path / "new", "x")
    assert {entry.name for entry in tmp_path.iterdir()} == {"new", living.name}
