"""`python -m …`, `dvc` and `ltgc` as forks of one process that has done the imports.

A stage imports for 5 to 13 s and computes for one, and `dvc repro` of a small world is mostly that. `folder()` is
a folder of commands to put first in PATH. Each hands its arguments, environment, working directory and files to
the process that waits, which forks; the fork runs the module as Python would. All workers of a test run share
that process. What is run is the same code in a process of its own, with one difference: a fork is no child of the
one who asked, so that killing that one does not reach it.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from helpers.paths import ROOT

# The folder for the processes of this test run: the first that imports this (pytest, not its workers) makes it.
PLACE = "WARM_COMMANDS"
# What each command runs. `python` takes -m of our own packages only and leaves the rest to the real one.
MODULES = {"dvc": "dvc", "ltgc": "ltgc"}
OURS = ("stages.", "ltgc", "embedded.")
OTHERS = ("dvc.cli", "dvc.repo.reproduce", "ltgc.cli", "langchain_openai", "embedded.endpoint")  # than the stages
# Seconds after which the process looks whether the test run still lives.
LOOK = 10

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python":
    if len(arguments) < 2 or arguments[0] != "-m" or not arguments[1].startswith({ours!r}):
        os.execv({python!r}, [{python!r}, *arguments])
    module, arguments = arguments[1], arguments[2:]
else:
    module = {modules!r}[name]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"files"], [0, 1, 2])
asked = dict(module=module, arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
lines = server.makefile("rw")
print(json.dumps(asked), file=lines, flush=True)
process = lines.readline()
status = int(lines.readline())
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def make_place() -> None:
    """Once a test run, before there are workers: they inherit it."""
    if PLACE not in os.environ:
        os.environ[PLACE] = tempfile.mkdtemp(prefix="warm-")
        atexit.register(shutil.rmtree, os.environ[PLACE], ignore_errors=True)


@cache
def folder() -> str:
    """The folder of commands. The process behind them starts with the first call and ends with the test run."""
    place = Path(os.environ[PLACE])
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "socket").exists():
            start_server(place)
    return str(place)


def python() -> str:
    """For `-m` of our own packages; anything else is run by Python itself."""
    return f"{folder()}/python"


def start_server(place: Path) -> None:
    for name in ("python", *MODULES):
        values = {"python": sys.executable, "ours": OURS, "modules": MODULES, "address": str(place / "socket")}
        (place / name).write_text(CLIENT.format(**values))
        (place / name).chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
        listener.listen()
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "helpers.warm_commands"]
        subprocess.Popen(command, stdin=listener, env=environment, cwd=ROOT, start_new_session=True)


class Fork:
    """A module that runs as `python -m` in `folder`, with what it prints thrown away."""

    def __init__(self, module: str, working_directory: Path, **environment: str) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(f"{folder()}/socket")
        with Path(os.devnull).open("r+b") as nothing:
            socket.send_fds(self.server, [b"files"], [nothing.fileno()] * 3)
        asked = {"module": module, "arguments": [], "folder": str(working_directory)}
        self.lines = self.server.makefile("rw")
        print(json.dumps(asked | {"environment": os.environ | environment}), file=self.lines, flush=True)
        self.pid = int(self.lines.readline())

    def wait(self) -> int:
        """The exit code; of a process that a signal ended: less that."""
        with self.server, self.lines:
            return int(self.lines.readline())


def serve() -> None:
    """The process that waits: the listening socket is its standard input."""
    listener = socket.socket(fileno=os.dup(0))
    listener.settimeout(LOOK)
    for path in sorted((ROOT / "stages").glob("[a-z]*.py")):
        importlib.import_module(f"stages.{path.stem}")
        del sys.modules[f"stages.{path.stem}"]  # it is run as __main__
    del sys.modules["stages"]  # those of the working directory are run
    for module in OTHERS:
        importlib.import_module(module)
    gc.freeze()  # a collection would copy what is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks that answer are waited for by nobody
    while Path(os.environ[PLACE]).exists():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.setblocking(True)
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
        connection.close()
    os._exit(0)  # taking the modules apart takes a second, and prints what they leak


def answer(connection: socket.socket) -> None:
    """In a fork: run what is asked for in another fork, say its process id, and how it ended."""
    _, files, _, _ = socket.recv_fds(connection, len(b"files"), 3)
    with suppress(BrokenPipeError), connection.makefile("rw") as lines:  # the one who asked may be killed
        asked = json.loads(lines.readline())
        child = os.fork()
        if not child:
            connection.detach()
            run(files, **asked)
        try:
            print(child, file=lines, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=lines, flush=True)
        finally:  # the one who asked may have been killed
            os._exit(0)


def run(files: list[int], module: str, arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Ends as Python does, but for taking its modules apart, which takes a second."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.executable = f"{os.environ[PLACE]}/python"  # for the endpoint that stages start
    os.environ.clear()
    os.environ.update(environment)
    its_own = environment.get("PYTHONPATH", "").split(os.pathsep)
    installed = [path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests"))]
    sys.path[:] = [folder, *filter(None, its_own), *installed]
    sys.argv[:] = [module, *arguments]
    if "." in module:
        sys.modules.pop(module, None)  # it is run as __main__
    status: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    serve()
