"""Is this machine fit for params.yaml? One line a check, a remedy for each that fails, exit code 1 if one does.

    ltgc doctor

Nothing is paid for, nothing large is downloaded or loaded, and no key is printed.
"""

import asyncio
import difflib
import json
import os
import platform
import shutil
import struct
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx2
import huggingface_hub
import openai
import torch
from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.table import Table

from ltgc.clients import diffusers_painter
from ltgc.clients.answers import any_json
from ltgc.clients.budget import Budget
from ltgc.clients.limits import Limits
from ltgc.clients.server import NO_KEY, Server, running
from ltgc.clip.weights import locate_clip
from ltgc.commands.estimate import estimate
from ltgc.data.roots import DRAWN, image_root
from ltgc.pipeline import artifacts, files, params, pins
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import EMBEDDED, ServerSettings, T2ISettings
from ltgc.pipeline.terminal import console, output

SERVERS = ("llm", "vision", "t2i")
SECONDS = 10  # that a server or the hub may take to answer
NAMED = 5  # models named of a server that has not the one asked for
GIB = 2**30
FREE = 1 * GIB  # of disk, whatever is drawn: models, metrics, DVC's own files
BYTES_A_PIXEL = 2  # of a PNG of a photo; DALL-E's come to 1.5 to 3
COPIES = 4  # of an image: in the store, in generated/, and in DVC's cache of both
# Memory beside the weights, as a part of them: activations of a batch, and the CUDA context. A rough guess.
BESIDE = 0.3
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def packages(settings: Params) -> str:
    """Python and the packages are those that pyproject.toml asks for."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = platform.python_version()
    if not SpecifierSet(project["requires-python"]).contains(python, prereleases=True):
        raise LTGCError(f"Python {python} is not {project['requires-python']}; make the environment with another")
    wrong = [need for need in map(Requirement, project["dependencies"]) if not _installed(need)]
    if wrong:
        raise LTGCError(f"not installed: {', '.join(map(str, wrong))}; run `make` or `pip install -e .`")
    return f"Python {python} and {len(project['dependencies'])} packages"


def device(settings: Params) -> str:
    """torch sees the GPU that is there, and the devices that are asked for."""
    asked = {"train.device": settings.train.device, "evaluate.device": settings.evaluate.device}
    if settings.t2i.backend == "diffusers":
        asked["t2i.diffusers.device"] = settings.t2i.diffusers.device
    built = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return f"{built}, {gpu.name} with {gpu.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
    if wanting := [key for key, value in asked.items() if value == "cuda"]:
        raise LTGCError(
            f"{wanting[0]}: cuda, but {built} sees no GPU; set it to auto, or install torch for your CUDA"
        )
    if shutil.which("nvidia-smi"):
        raise LTGCError(f"{built} does not see this machine's GPU; install torch for the driver's CUDA")
    return f"{built}, no GPU: on {os.cpu_count()} cores"


def memory(settings: Params) -> str:
    """The weights fit into the GPU, or into main memory where there is none."""
    needed: dict[str, float] = {}
    folder = Path(settings.clip.model.partition(":")[2])
    if settings.clip.model.startswith("local-dir:") and folder.is_dir():
        needed["CLIP"] = parameters(folder) * BYTES["float32"]
    t2i = _weights(settings.t2i) if settings.t2i.backend == "diffusers" else None
    if t2i:
        parts = [parameters(part) for part in t2i.iterdir() if part.is_dir()]
        # Offloading holds one part at a time, sequentially one layer.
        held = {"none": sum(parts), "model": max(parts, default=0), "sequential": 0}
        needed["T2I"] = held[settings.t2i.diffusers.offload] * BYTES[settings.t2i.diffusers.dtype]
    if not needed:
        return "not known: the weights are not on this machine yet"
    where, there = "main memory", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if torch.cuda.is_available():
        where, there = "GPU memory", float(torch.cuda.get_device_properties(0).total_memory)
    total = sum(needed.values()) * (1 + BESIDE)
    said = f"{_gib(total)} of {_gib(there)} {where} ({', '.join(f'{k} {_gib(v)}' for k, v in needed.items())})"
    if total > there:
        raise LTGCError(
            f"needs about {said}; set t2i.diffusers.offload: model, dtype: bfloat16, or a smaller model"
        )
    return f"about {said}"


def disk(settings: Params) -> str:
    """There is room for what is going to be stored."""
    free = shutil.disk_usage(".").free
    need, what = float(FREE), "the images are counted once `dvc repro prepare` has run"
    if CLASSES.exists():
        classes = files.read_csv(CLASSES, ClassRecord)
        images = estimate(settings, classes)["generate"].images
        width, height = (1024, 1024) if settings.t2i.size == "auto" else map(int, settings.t2i.size.split("x"))
        need += images * width * height * BYTES_A_PIXEL * COPIES
        what = f"{images:,.0f} images of {width} x {height}, {COPIES} copies"
    said = f"{_gib(need)} of {_gib(free)} free ({what})"
    if need > free:
        raise LTGCError(f"needs about {said}; free some space, or lower extend.target or t2i.size")
    return f"about {said}"


def folders(settings: Params) -> str:
    """Every folder that the stages write to can be written to."""
    paths = {path.parts[0] for path in artifacts.paths().values()} | {".dvc"}
    for path in map(Path, sorted(paths)):
        _write_to(path)
    return f"{len(paths)} can be written to"


def key(name: str, settings: Params) -> str:
    section = getattr(settings, name)
    if _draws_here(section):
        return "none needed: it draws on this machine"
    server = Server(name, section, Limits([section]))  # raises where it is missing
    return "none needed" if server.key == NO_KEY else f"${section.api_key_env} is set"


def answers(name: str, settings: Params) -> str:
    """The server is there, takes the key and knows the model: it is asked what models it has, which is free."""
    section = getattr(settings, name)
    if _draws_here(section):
        return "not asked: it draws on this machine"
    section = section.model_copy(update={"retries": 0, "timeout": min(section.timeout, SECONDS)})
    with running(**{name: section}) as (server,):
        listed = asyncio.run(_models(server))
    where = EMBEDDED if section.base_url == EMBEDDED else section.base_url
    if listed is None:
        return f"{where} answers; it lists no models (or base_url is not where its API begins: mostly /v1)"
    if section.model not in listed:
        near = difflib.get_close_matches(section.model, listed, NAMED, 0.3) or sorted(listed)[:NAMED]
        raise LTGCError(f"{name}.model: {where} knows no {section.model!r}; it knows {', '.join(near) or 'none'}")
    return f"{where} knows {section.model}"


def prices(settings: Params) -> str:
    """A cap in money needs the price of every model."""
    budget = Budget(settings.budget, settings.prices)
    costs = {
        settings.llm.model: budget.cost(settings.llm.model),
        settings.vision.model: budget.cost(settings.vision.model),
        settings.t2i.model: budget.cost(settings.t2i.billed_as),
    }
    unknown = ", ".join(model for model, cost in costs.items() if cost is None)
    if unknown and settings.budget.max_usd is not None:
        raise LTGCError(f"prices: no price for {unknown}, and budget.max_usd is set; add it to params.yaml")
    return f"no price for {unknown}: the bill will say so" if unknown else "every model has one"


def images(settings: Params) -> str:
    """The data source can be read."""
    roots = {"data.root": settings.data.root}
    if settings.data.source not in DRAWN:
        roots["data.images"] = image_root(settings.data)
    for name, root in roots.items():
        try:
            next(root.iterdir())
        except StopIteration:
            raise LTGCError(f"{name}: {root} is empty; set it to your images") from None
        except OSError as error:
            raise LTGCError(f"{name}: {root}: {error.strerror}; set it to your images") from None
    return f"{settings.data.source} in {settings.data.root}"


def clip_model(settings: Params) -> str:
    """CLIP is on this machine and the one that is pinned, or can be downloaded."""
    section = settings.clip
    try:
        with _offline():
            source = locate_clip(section)
    except LTGCError as error:
        if not _from_hub(error):
            raise
        return f"{section.model} {section.pretrained or ''} is not on this machine; {_hub()}"
    if section.revision is None:
        return f"{section.model} is there, but not pinned: clip.revision: {source.revision}"
    pins.check("clip.revision", section.model, source.revision, section.revision)
    return f"{section.model} is the one that is pinned"


def t2i_model(settings: Params) -> str:
    """The pipeline of the backend diffusers is on this machine, or can be downloaded."""
    section = settings.t2i
    if section.backend == "openai":
        return "not needed: a server draws"
    with console.capture():  # it would print the pin, too
        revision, _ = diffusers_painter.identity(section)
    weights = _weights(section)
    if weights is None:
        return f"{section.model} is not on this machine; {_hub()}"
    if not (weights / "model_index.json").is_file() or not parameters(weights):
        raise LTGCError(
            f"t2i.model: {weights} is no diffusers pipeline in safetensors (model_index.json and weights)"
        )
    if section.diffusers.revision is None:
        return f"{section.model} is there, but not pinned: t2i.diffusers.revision: {revision}"
    return f"{section.model} is there"


def remote(settings: Params) -> str:
    """DVC's default remote can be reached."""
    name = "of the default"
    try:
        with Repo() as repo:
            name = repo.config["core"].get("remote", "")
            if not name:
                return "none is set; to share what was paid for: dvc remote add -d NAME URL"
            storage = repo.cloud.get_remote(name)
            if storage.fs.protocol == "local":
                _write_to(Path(storage.path))
            else:
                storage.fs.ls(storage.path)  # exists() says no where nobody answers, too
    except FileNotFoundError:
        return f"{name} can be reached, and is empty"
    except NotDvcRepoError as error:
        raise LTGCError(f"{Path.cwd()} is no DVC repository; run from a clone, or `dvc init`") from error
    except LTGCError as error:
        raise LTGCError(f"remote {name}: {error}") from error
    except Exception as error:  # of any storage library
        said = " ".join(str(error).split())[:200]
        raise LTGCError(f"remote {name}: {said}; see `dvc remote list` and `dvc doctor`") from error
    return f"{name} can be reached"


CHECKS: dict[str, Callable[[Params], str]] = {
    "packages": packages,
    "device": device,
    "memory": memory,
    "disk": disk,
    "folders": folders,
    "images": images,
    **{f"key of {name}": partial(key, name) for name in SERVERS},
    **{f"server of {name}": partial(answers, name) for name in SERVERS},
    "prices": prices,
    "CLIP": clip_model,
    "local T2I": t2i_model,
    "DVC remote": remote,
}


def parameters(folder: Path) -> int:
    """How many numbers the safetensors files below `folder` hold, by their headers; variants not twice."""
    count = 0
    for file in folder.rglob("*.safetensors"):
        if (
            file.with_name(".".join(file.name.split(".")[:-2]) + ".safetensors").exists()
            and file.name.count(".") > 1
        ):
            continue  # x.fp16.safetensors beside x.safetensors
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        for name, tensor in header.items():
            size = 1
            for side in tensor["shape"] if name != "__metadata__" else [0]:
                size *= side
            count += size
    return count


def _installed(need: Requirement) -> bool:
    try:
        return need.specifier.contains(version(need.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _draws_here(section: ServerSettings) -> bool:
    return isinstance(section, T2ISettings) and section.backend == "diffusers"


async def _models(server: Server) -> set[str] | None:
    """The models that the server lists; None if it has no such list."""
    async with server.client(any_json) as client:
        try:
            return {model.id async for model in client.models.list()}
        except openai.APIStatusError as error:
            if error.status_code in (404, 405, 501):
                return None
            why = server.failure(error)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            why = server.failure(error)
    raise LTGCError(f"{server.name}.base_url {server.base_url}: {why}; it said: {server.said}")


def _weights(section: T2ISettings) -> Path | None:
    """The folder of the pipeline; None where it is not downloaded yet."""
    if Path(section.model).is_dir():
        return Path(section.model)
    try:
        found = huggingface_hub.snapshot_download(
            section.model, revision=section.diffusers.revision, local_files_only=True
        )
    except (OSError, ValueError):
        return None
    return Path(found)


@contextmanager
def _offline() -> Iterator[None]:
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _from_hub(error: BaseException | None) -> bool:
    """Whether it is that the hub was not asked, being offline."""
    missing = (huggingface_hub.errors.LocalEntryNotFoundError, huggingface_hub.errors.OfflineModeIsEnabled)
    while error is not None:
        if isinstance(error, missing):
            return True
        error = error.__cause__ or error.__context__
    return False


def _hub() -> str:
    try:
        httpx2.head(constants.ENDPOINT, timeout=SECONDS)
    except httpx2.HTTPError as error:
        raise LTGCError(
            f"not on this machine, and {constants.ENDPOINT} does not answer; name a folder that holds the weights"
        ) from error
    return "it will be downloaded"


def _write_to(path: Path) -> None:
    """Raises LTGCError if a file cannot be made in `path`, or, where it is not there yet, in what will hold it."""
    while not path.exists():
        path = path.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise LTGCError(f"{path}: {error.strerror}; make it a folder that you can write to") from error


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def diagnose(settings: Params) -> list[tuple[str, bool, str]]:
    """(check, whether it passed, what was found or what to do) of every check."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append((name, True, check(settings)))
        except LTGCError as error:
            found.append((name, False, str(error)))
    return found


def main() -> None:
    settings = params.load(
        "data",
        "llm",
        "vision",
        "t2i",
        "clip",
        "extend",
        "templates",
        "train",
        "evaluate",
        "ask",
        "budget",
        "prices",
    )
    found = diagnose(settings)
    table = Table(show_header=False, box=None)
    for name, passed, said in found:
        table.add_row("[green]✓[/]" if passed else "[red]✗[/]", name, said.replace("[", r"\["))
    output().print(table)
    if not all(passed for _, passed, _ in found):
        sys.exit(1)
