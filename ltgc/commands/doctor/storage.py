"""Checks of what is read and written: disk space, folders, prompts, the images of the data set, DVC's remote."""

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo

from graphs import prompts
from ltgc.clients import pool
from ltgc.clients.pool import Pool
from ltgc.commands.estimate import estimate
from ltgc.data.roots import MADE, image_root
from ltgc.data.sources import wildflowers
from ltgc.pipeline import artifacts, files
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.review import REVIEW
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params

GIB = 2**30
OTHER_FILES = 1 * GIB  # models, metrics and DVC's own files, however many images are drawn
BYTES_A_PIXEL = 2  # of a PNG of a photo; those of photos come to 1.5 to 3
COPIES = 3  # of a drawing: in the pool, in generated/, and in DVC's cache


def disk(settings: Params) -> str:
    """There is room for what is going to be stored."""
    free = shutil.disk_usage(".").free
    need, what = float(OTHER_FILES), "the images are counted once `dvc repro prepare` has run"
    if CLASSES.exists():
        classes = files.read_csv(CLASSES, ClassRecord)
        images = estimate(settings, classes)["generate"].images
        width, height = (1024, 1024) if settings.t2i.size == "auto" else map(int, settings.t2i.size.split("x"))
        need += images * width * height * BYTES_A_PIXEL * COPIES
        what = f"{images:,.0f} images of {width} x {height}, {COPIES} copies"
    summary = f"{gib(need)} of {gib(free)} free ({what})"
    if need > free:
        raise LTGCError(f"needs about {summary}; free some space, or lower extend.target or t2i.size")
    return f"about {summary}"


def folders(settings: Params) -> str:
    """Every folder that the stages write to can be written to."""
    paths = {path.parts[0] for path in artifacts.paths().values() if path != REVIEW} | {".dvc"}
    for path in map(Path, sorted(paths)):
        write_to(path)
    return f"{len(paths)} can be written to"


def replies(settings: Params) -> str:
    """The pool of replies that were paid for can be written to."""
    if all(section.embedded for section in (settings.llm, settings.vision, settings.t2i)):
        return "not needed: the embedded endpoint costs nothing"
    with closing(Pool(pool.user_folder())) as found:
        found.check_room()
        return f"{found.folder} (${pool.CACHE} names another folder)"


def prompt_files(settings: Params) -> str:
    """Every prompt is there and is a template."""
    prompts.load()
    return f"{len(prompts.PLACES)} files in {prompts.PROMPTS}"


def images(settings: Params) -> str:
    """The data source can be read."""
    roots = {"data.root": settings.data.root}
    if settings.data.source not in MADE:
        roots["data.images"] = image_root(settings.data)
    for name, root in roots.items():
        try:
            next(root.iterdir())
        except StopIteration:
            raise LTGCError(f"{name}: {root} is empty; set it to your images") from None
        except OSError as error:
            raise LTGCError(f"{name}: {root}: {error.strerror}; set it to your images") from None
    if settings.data.source == "wildflowers":
        wildflowers.check_root(settings.data)
    return f"{settings.data.source} in {settings.data.root}"


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
                write_to(Path(storage.path))
            else:
                storage.fs.ls(storage.path)  # exists() says no also where nothing answers
    except FileNotFoundError:
        return f"{name} can be reached, and is empty"
    except NotDvcRepoError as error:
        raise LTGCError(f"{Path.cwd()} is no DVC repository; run from a clone, or `dvc init`") from error
    except LTGCError as error:
        raise LTGCError(f"remote {name}: {error}") from error
    except Exception as error:  # of any storage library
        message = " ".join(str(error).split())[:200]
        raise LTGCError(f"remote {name}: {message}; see `dvc remote list` and `dvc doctor`") from error
    return f"{name} can be reached"


def write_to(path: Path) -> None:
    """Raises LTGCError if no file can be made in `path`, or, before it exists, in the folder that will hold it."""
    while not path.exists():
        path = path.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise LTGCError(f"{path}: {error.strerror}; make it a folder that you can write to") from error


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
