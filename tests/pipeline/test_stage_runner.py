"""What ends a stage from outside: Ctrl-C, a full disk, a folder that may not be written."""

import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import yaml
from helpers import training_world
from helpers.openai_server import Hang
from helpers.paths import ROOT

from ltgc.pipeline.artifacts.descriptions import EXISTING

# A stage ends within two seconds of Ctrl-C; this says that it ends at all, on the busiest machine.
SECONDS = 30


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "a"}
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_stage_that_waits_for_a_server_stops_with_a_line_that_says_how_to_go_on(tmp_path, running_server):
    asked = threading.Event()

    def hang(request):
        asked.set()
        return Hang()

    running_server.reset()
    running_server.chat = hang
    training_world.world(tmp_path, "local-dir:unused")
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["vision"] |= {"base_url": running_server.base_url}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / EXISTING).unlink()
    process = start(tmp_path, "-m", "stages.describe")
    assert asked.wait(SECONDS)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert said == "stopped; what was paid for is kept: run `dvc repro` to go on\n"
    assert not (tmp_path / EXISTING).exists()


def test_a_stage_in_the_middle_of_something_long_does_not_wait_for_its_end(tmp_path):
    # As a T2I model that draws in a thread, which Python cannot interrupt and asyncio waits for
    long = "import asyncio, threading; from ltgc.pipeline import stage; asleep = threading.Event().wait; " + (
        "stage.run(lambda: asyncio.run(asyncio.to_thread(lambda: (print('drawing', flush=True), asleep()))))"
    )
    process = start(tmp_path, "-c", long)
    assert process.stdout and process.stdout.readline() == "drawing\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert said == "stopped; what was paid for is kept: run `dvc repro` to go on\n"


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    (tmp_path / "table.csv").write_text("as it was")
    full = (
        "import resource; from pathlib import Path; from ltgc.pipeline import files, stage; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "stage.run(lambda: files.write_text(Path('table.csv'), 'x' * 5000))"
    )
    process = start(tmp_path, "-c", full)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "ulimit -f" in said and "dvc repro" in said
    assert (tmp_path / "table.csv").read_text() == "as it was"


def test_a_folder_that_may_not_be_written_is_one_line_that_names_it(tmp_path):
    # Not even root makes a folder there.
    refused = "from pathlib import Path; from ltgc.pipeline import files, stage; " + (
        "stage.run(lambda: files.write_text(Path('/sys/ltgc/table.csv'), 'x'))"
    )
    process = start(tmp_path, "-c", refused)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, said
    assert said.startswith("error: /sys/ltgc") and said.count("\n") == 1


def test_help_prints_the_docstring_of_a_stage(tmp_path):
    # A stage that imports no large library; all are run in the same way.
    process = start(tmp_path, "-m", "stages.ablate", "--help")
    printed, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (0, "")
    assert printed.strip() == (import_module("stages.ablate").__doc__ or "").strip()


def test_arguments_that_a_stage_does_not_take_are_one_line(tmp_path):
    process = start(tmp_path, "-m", "stages.ablate", "a", "b")
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert said.startswith("error: ") and said.count("\n") == 1 and "stages.ablate --help" in said
