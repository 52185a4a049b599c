"""Stage train: fine-tune CLIP's visual encoder by one method from one seed.

python -m stages.train balancemix 0
accelerate launch --num_processes 2 -m stages.train balancemix 0
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from ltgc.classifier import devices, tuning
from ltgc.classifier.head import HeadSource, initial_bias, initial_head
from ltgc.classifier.inference import class_mean_accuracy
from ltgc.classifier.network import Classifier
from ltgc.clip import pixels
from ltgc.clip.weights import load_clip
from ltgc.data.images import ImageFile
from ltgc.data.roots import image_file, image_root
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.code import CODE
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.artifacts.runs import CURVES, MODELS, Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import Method
from ltgc.pipeline.terminal import console
from ltgc.training import checkpoint, losses
from ltgc.training.batches import TrainingSet, class_counts, class_prior, keep_generated, make_plan
from ltgc.training.loop import Row, train
from ltgc.training.methods import METHODS


def main(method: str = "", seed: str = "") -> None:
    if method not in METHODS or not seed.isdecimal():
        raise LTGCError(
            f"usage: python -m stages.train METHOD SEED, METHOD one of {', '.join(METHODS)}, SEED 0, 1, ..."
        )
    section = params.load("data.source", "data.root", "data.images", "clip", "train")
    if not devices.for_training(section.train).is_main_process:
        fit(method, int(seed), section)
        return
    folder = MODELS / method / seed
    part = folder.with_name(f".{seed}.part")  # becomes `folder` when it is whole
    curves = CURVES / method / seed
    for stale in (part, curves):
        shutil.rmtree(stale, ignore_errors=True)
        stale.mkdir(parents=True)
    try:
        run = fit(method, int(seed), section, part, curves)
        files.write_json(part / "run.json", run.model_dump())
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    saved(method, int(seed)).unlink(missing_ok=True)
    result = f"skipped: {run.skipped}" if run.skipped else f"validation accuracy {run.val_accuracy} %"
    console.print(f"{method}, seed {seed}: {result}")


def saved(method: str, seed: int) -> Path:
    return checkpoint.FOLDER / method / f"{seed}.safetensors"


def show_in(folder: Path) -> Callable[[Row], None]:
    """Writes rows of the training curve into `folder` as DVCLive does, for `dvc plots show`, as they come."""
    from dvclive import Live  # with what it loads of DVC 0.4 s, which zero-shot does not need

    live = Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None)

    def show(row: Row) -> None:
        live.step = row["step"]
        for name in ("loss", "lr", "val_accuracy"):
            if row[name] is not None:
                live.log_metric(name, row[name])

    return show


def fit(
    method: Method,
    seed: int,
    section: params.Params,
    folder: Path | None = None,
    curves: Path | None = None,
) -> Run:
    """Train `method`; what was done. Adapter and head go to `folder`, the training curve to `curves`.

    Of several processes only the main one has folders.
    """
    digests = CODE / "train.txt"
    recipe = METHODS[method]
    settings = recipe.settings(section.train) if recipe else section.train
    classes = files.read_csv(CLASSES, ClassRecord)
    templates = files.read_jsonl(TEMPLATES, ClassTemplate)
    manifest = files.read_csv(MANIFEST, ImageRecord)
    root = image_root(section.data)
    original = [(image_file(root, image), image.label) for image in manifest if image.split == "train"]
    validation = [(image_file(root, image), image.label) for image in manifest if image.split == "val"]
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    dropped = {d.image for d in files.read_csv(DROPPED, Contamination)}  # nearly test images
    accepted = [(a.image, a.label) for a in attempts if a.verdict == "accepted" and a.image]
    generated = [(ImageFile(image), label) for image, label in accepted if image not in dropped]
    kept = keep_generated([label for _, label in generated], [c.train for c in classes], settings.generated)
    if recipe and recipe.needs_generated and generated and not kept:
        raise LTGCError("train.generated.per_class: leaves no generated image to train on; raise it, or set null")
    generated = [generated[position] for position in kept]
    run = Run(
        method=method,
        seed=seed,
        skipped=None,
        steps=0,
        original=len(original),
        generated=len(generated),
        images_seen=0,
        val_accuracy=None,
    )
    if recipe and recipe.needs_generated and not generated:
        reason = "needs generated images, and generated/accepted has none (extend.target: 0?)"
        return run.model_copy(update={"skipped": reason})

    model = load_clip(section.clip, settings.device)

    def load(images: list[tuple[ImageFile, int]]) -> tuple[pixels.Pixels, torch.Tensor]:
        labels = torch.tensor([label for _, label in images], dtype=torch.int64)
        return pixels.load([file for file, _ in images], model), labels

    def descriptions() -> list[ExistingDescription | ExtendedDescription]:
        return [
            *files.read_jsonl(EXISTING, ExistingDescription),
            *files.read_jsonl(EXTENDED, ExtendedDescription),
        ]

    torch.manual_seed(seed)
    head = initial_head(
        settings.head_init, HeadSource(model, classes, templates, descriptions, lambda: load(original))
    )
    scale = model.logit_scale if settings.logit_scale is None else settings.logit_scale
    visual = tuning.apply(model.model.visual, settings) if recipe else model.model.visual
    classifier = Classifier(visual, head, scale, initial_bias(settings.head, len(classes)))
    classifier = classifier.to(model.device).eval()

    val_pixels, val_labels = load(validation)

    def validate() -> float | None:
        return class_mean_accuracy(classifier, val_pixels, val_labels, settings.batch_size, settings.workers)

    curve: list[Row] = []
    if recipe:
        training_set = TrainingSet(*load(original + generated), original=len(original))
        plan = make_plan(recipe, training_set, settings)
        loss = losses.make(
            settings,
            losses.Classes(
                prior=class_prior(recipe, training_set, settings, len(classes)).to(model.device),
                counts=class_counts(recipe, training_set, len(classes)).to(model.device),
                logit_scale=scale,
            ),
            soft_targets=plan.soft,
        )
        curve = train(
            classifier,
            plan,
            training_set,
            settings,
            loss=loss,
            validate=validate,
            log=show_in(curves) if curves else lambda row: None,
            saved=saved(method, seed),
            code=digests.read_bytes() if digests.exists() else b"",
        )
        run = run.model_copy(update={"steps": settings.steps, "images_seen": plan.images_seen})
    if folder:
        classifier.save(folder)
    val_accuracy = curve[-1]["val_accuracy"] if curve else validate()
    return run.model_copy(update={"val_accuracy": val_accuracy})


if __name__ == "__main__":
    stage.run(main)
