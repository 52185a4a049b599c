"""GPU-hours of drawing and of training, from rates that `ltgc bench` measured or the command line gives."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ltgc.pipeline import files
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params

BENCH = Path("bench.json")  # what `ltgc bench` writes


class Rate(BaseModel):
    """Images a second of one GPU, and what drew them or was trained on them."""

    images_per_second: float
    of: str


class Rates(BaseModel):
    drawing: Rate | None = None
    training: Rate | None = None


def rates(drawing: float | None, training: float | None) -> Rates:
    """Those that were given; the others from bench.json, if it is there. Raises LTGCError for another file."""
    measured = Rates()
    if BENCH.is_file():
        try:
            measured = Rates.model_validate(files.read_json(BENCH))
        except ValueError as error:
            raise LTGCError(f"{BENCH}: not what `ltgc bench` writes; run it again, or delete the file") from error
    given = {"drawing": drawing, "training": training}
    return measured.model_copy(
        update={name: Rate(images_per_second=rate, of="given") for name, rate in given.items() if rate}
    )


def lines(settings: Any, drawings: float, known: Rates) -> list[str]:
    """What to say of each kind of work that our own GPUs do with these params.

    A rate that is not known is asked for where diffusers draws. Who draws with a server may have no GPU.
    """
    draws = settings.t2i.backend == "diffusers"
    wanted: dict[str, tuple[float, str]] = {"drawing": (drawings, "drawn")} if draws else {}
    if draws or known.training:
        wanted["training"] = (trained_images(settings), "trained")
    said = []
    for name, (images, done) in wanted.items():
        rate: Rate | None = getattr(known, name)
        if rate is None:
            said.append(f"GPU-hours of {name}: run `ltgc bench --gpu`, or give --{name}-rate.")
            continue
        hours = images / rate.images_per_second / 3600
        said.append(
            f"{name.capitalize()}: {hours:,.1f} GPU-hours ({images:,.0f} images {done} at "
            f"{rate.images_per_second:,.4g} a second; {rate.of})."
        )
    return said


def trained_images(settings: Params) -> int:
    """Images (pairs, where a method mixes) that all runs of the stage train see, as `ltgc bench` counts them."""
    from ltgc.training.methods import METHODS  # brings torch: 2 s

    sections = [settings.train.of(method) for method in settings.methods if METHODS[method].i]
    return len(settings.seeds) * sum(section.steps * section.batch_size for section in sections)
