"""Which training runs are finished, and where a run lies.

All runs are trained in one process, because torch, CLIP and LoRA take 9 s of computing to import and a run of the
default takes 15. One more seed must still train only that seed, and a stage that was killed must not begin again.
So every run is saved with a key of all that it is trained from, DVC leaves models/ and plots/curves/ as they are
(`persist`), and a run with the wanted key is not trained again. Runs with other keys are set aside, not deleted:
going back to earlier params trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, DROPPED
from ltgc.pipeline.artifacts.runs import CURVES, MODELS, Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.sections import Params
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS, Method

DRAWINGS = (ATTEMPTS, ACCEPTED, DROPPED)
CHECKPOINTS = Path(".checkpoints")  # of runs that were killed
ASIDE = CHECKPOINTS / "aside"  # finished runs that others replaced, by their keys; may be deleted at any time
# Where and how fast a run is trained, and not what comes out of it but for rounding.
IRRELEVANT = {"device", "workers", "checkpoint_steps"}


@dataclass(frozen=True)
class RunId:
    method: Method
    seed: int
    key: str

    @property
    def model(self) -> Path:
        return MODELS / self.method / str(self.seed)

    @property
    def curve(self) -> Path:
        return CURVES / self.method / str(self.seed)

    def checkpoint(self, phase: int) -> Path:
        """Of a phase of the run, from 0."""
        name = f"{self.seed}.{phase}" if phase else f"{self.seed}"
        return CHECKPOINTS / self.method / f"{name}.safetensors"

    def delete_checkpoints(self) -> None:
        for path in (CHECKPOINTS / self.method).glob(f"{self.seed}.*"):
            path.unlink()

    def is_finished(self) -> bool:
        return self.key in (_key(self.model), _key(ASIDE / self.key / "model"))

    def put_back(self) -> None:
        """Put the run where it belongs if it was set aside."""
        aside = ASIDE / self.key
        if _key(self.model) != self.key and _key(aside / "model") == self.key:
            set_aside(self.model, self.curve)
            _move(aside / "curve", self.curve)
            _move(aside / "model", self.model)
            shutil.rmtree(aside)


def key_of(method: Method, seed: int, section: Params, inputs: Mapping[str, str]) -> str:
    """The key of a run. section: with `clip` and `train`; inputs: a digest of each file and of the code.

    Other drawings make no other run of a method that is trained on photos alone.
    """
    read = {
        path: digest
        for path, digest in inputs.items()
        if method not in WITHOUT_DRAWINGS or Path(path) not in DRAWINGS
    }
    train = section.train.of(method).model_dump(mode="json", exclude=IRRELEVANT)
    determining = [method, seed, section.clip.model_dump(mode="json"), train, read]
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()[:32]


def set_aside(model: Path, curve: Path) -> None:
    """Make room for another run. What is no whole run is deleted."""
    if key := _key(model):
        shutil.rmtree(ASIDE / key, ignore_errors=True)
        _move(curve, ASIDE / key / "curve")
        _move(model, ASIDE / key / "model")
    for folder in (model, curve):
        shutil.rmtree(folder, ignore_errors=True)


def set_others_aside(wanted: Collection[RunId]) -> None:
    """Leave no other runs than `wanted` in models/ and plots/curves/."""
    kept = {run_id.model for run_id in wanted}
    for model in sorted(MODELS.glob("*/*")):
        if model not in kept:
            set_aside(model, CURVES / model.relative_to(MODELS))
    for method in [*MODELS.glob("*"), *CURVES.glob("*")]:
        if not any(method.iterdir()):
            method.rmdir()


def _key(model: Path) -> str | None:
    """Of the finished run in the folder `model`; None where there is none."""
    try:
        return files.read_record(model / "run.json", Run).key
    except LTGCError:
        return None


def _move(folder: Path, to: Path) -> None:
    """Move `folder`, if it is there: a run that trains nothing has no curve."""
    if folder.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, to)
