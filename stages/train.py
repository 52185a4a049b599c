"""Stage train: fine-tune CLIP's visual encoder by every method of params.yaml, from every seed.

python -m stages.train                  # trains the runs that are not finished yet
python -m stages.train balancemix       # those of one method
python -m stages.train balancemix 0     # one of them
accelerate launch --num_processes 2 -m stages.train
"""

import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from ltgc.data.roots import image_root
from ltgc.pipeline import files, params, pins, stage
from ltgc.pipeline.artifacts.code import CODE
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, TEMPLATES
from ltgc.pipeline.artifacts.runs import Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import Method
from ltgc.pipeline.terminal import console
from ltgc.training import runs
from ltgc.training.runs import RunId

INPUTS = [CODE / "train.txt", MANIFEST, CLASSES, EXISTING, EXTENDED, TEMPLATES, *runs.DRAWINGS]


def main(method: str = "", seed: str = "") -> None:
    if (method and method not in get_args(Method)) or (seed and not seed.isdecimal()):
        raise LTGCError(
            "usage: python -m stages.train [METHOD [SEED]], "
            f"METHOD one of {', '.join(get_args(Method))}, SEED 0, 1, ..."
        )
    section = params.load("data.source", "data.root", "data.images", "clip", "train", "methods", "seeds")
    inputs = {path.as_posix(): pins.fingerprint(path) for path in INPUTS}
    methods = [cast(Method, method)] if method else section.methods
    seeds = [int(seed)] if seed else section.seeds
    wanted = [RunId(m, s, runs.key_of(m, s, section, inputs)) for m in methods for s in seeds]
    unfinished = [run_id for run_id in wanted if not run_id.is_finished()]
    console.print(f"{len(wanted) - len(unfinished)} of {len(wanted)} runs are finished already")
    if unfinished:
        train(unfinished, section)
    if stage.is_main_process():
        for run_id in wanted:
            run_id.put_back()
        if not method:
            runs.set_others_aside(wanted)


def train(run_ids: Sequence[RunId], section: params.Params) -> None:
    # It takes 9 s of computing to import torch, CLIP and LoRA: not where there is nothing to train.
    from ltgc.classifier import devices
    from ltgc.clip.weights import load_clip
    from ltgc.training.fit import fit
    from ltgc.training.inputs import Inputs

    writes = devices.for_training(section.train).is_main_process  # before CLIP: this gives each process its GPU
    inputs = Inputs(load_clip(section.clip, section.train.device), image_root(section.data))
    for run_id in run_ids:
        if not writes:
            fit(run_id, inputs, section.train)
            continue
        runs.set_aside(run_id.model, run_id.curve)
        started = time.monotonic()
        run, classifier = fit(run_id, inputs, section.train, show_in(run_id.curve))
        seconds = time.monotonic() - started
        with files.replaced_folder(run_id.model) as folder:
            if classifier:
                classifier.save(folder)
            files.write_json(folder / "run.json", run.model_dump())
        run_id.delete_checkpoints()
        stage.note_run([run.method, run.seed], run.key, seconds)
        console.print(f"{run.method}, seed {run.seed}: {result(run)}")


def result(run: Run) -> str:
    if run.skipped:
        return f"skipped: {run.skipped}"
    parts = [f"validation accuracy {run.val_accuracy} %"]
    if run.head_alpha is not None:
        parts.append(f"first head at {run.head_alpha}")
    if run.alpha is not None:
        parts.append(f"α {run.alpha}")
    if run.drawings_weight is not None:
        parts.append(f"drawings worth {run.drawings_weight:.0%}")
    return ", ".join(parts)


def show_in(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Writes rows of the training curve into `folder` as DVCLive does, for `dvc plots show`, as they come."""

    @cache
    def live() -> Any:
        from dvclive import Live  # with what it loads of DVC 0.4 s, which zero-shot does not need

        return Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None)

    def show(row: dict[str, Any]) -> None:
        live().step = row["step"]
        for name in ("loss", "lr", "val_accuracy"):
            if row[name] is not None:
                live().log_metric(name, row[name])

    return show


if __name__ == "__main__":
    stage.run(main)
