"""Stage train: fine-tune CLIP's visual encoder by one method from one seed.

python -m stages.train balancemix 0
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from ltgc import artifacts, clip, data, params, pixels, stage
from ltgc.artifacts import Attempt, ClassRecord, ClassTemplate, Contamination, ImageRecord, Run
from ltgc.classifier import Classifier, accuracy, class_texts
from ltgc.errors import LTGCError
from ltgc.methods import METHODS
from ltgc.plan import TrainingSet, make_plan
from ltgc.train import train

CURVE = ["step", "loss", "lr", "val_accuracy"]


def main(method: str = "", seed: str = "") -> None:
    if method not in METHODS or not seed.isdecimal():
        raise LTGCError(
            f"usage: python -m stages.train METHOD SEED, METHOD one of {', '.join(METHODS)}, SEED 0, 1, ..."
        )
    section = params.load("data.source", "data.root", "data.images", "clip", "train")
    folder = artifacts.MODELS / method / seed
    part = folder.with_name(f".{seed}.part")  # becomes `folder` when it is whole
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        run, curve = fit(method, int(seed), section, part)
        artifacts.write_json(part / "run.json", run.model_dump())
        artifacts.write_csv(artifacts.CURVES / method / f"{seed}.csv", curve, CURVE)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    result = f"skipped: {run.skipped}" if run.skipped else f"validation accuracy {run.val_accuracy} %"
    stage.console.print(f"{method}, seed {seed}: {result}")


def fit(
    method: params.Method, seed: int, section: params.Params, folder: Path
) -> tuple[Run, list[dict[str, Any]]]:
    """Train `method`, write adapter and head into `folder`; what was done, and the training curve."""
    settings, recipe = section.train, METHODS[method]
    classes = artifacts.read_csv(artifacts.CLASSES, ClassRecord)
    templates = artifacts.read_jsonl(artifacts.TEMPLATES, ClassTemplate)
    manifest = artifacts.read_csv(artifacts.MANIFEST, ImageRecord)
    root = data.image_root(section.data)
    original = [(root / image.path, image.label) for image in manifest if image.split == "train"]
    validation = [(root / image.path, image.label) for image in manifest if image.split == "val"]
    attempts = artifacts.read_jsonl(artifacts.ATTEMPTS, Attempt)
    dropped = {d.image for d in artifacts.read_jsonl(artifacts.DROPPED, Contamination)}  # nearly test images
    accepted = [(a.image, a.label) for a in attempts if a.verdict == "accepted" and a.image]
    generated = [(Path(image), label) for image, label in accepted if image not in dropped]
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
        return run.model_copy(update={"skipped": reason}), []

    model = clip.load(section.clip, settings.device)
    head = model.text_features(class_texts(settings.head_init, classes, templates))
    scale = model.logit_scale if settings.logit_scale is None else settings.logit_scale
    visual = model.model.visual
    torch.manual_seed(seed)
    if recipe:
        from ltgc import lora  # with peft, 0.6 s to import, which zero-shot does not need

        visual = lora.add_adapter(visual, settings.lora)
    classifier = Classifier(visual, head, scale).eval()

    val_pixels = pixels.load([path for path, _ in validation], model)
    val_labels = torch.tensor([label for _, label in validation], dtype=torch.int64)

    def validate() -> float | None:
        return accuracy(classifier, val_pixels, val_labels, settings.batch_size)

    curve: list[dict[str, Any]] = []
    if recipe:
        images = original + generated
        labels = torch.tensor([label for _, label in images])
        training_set = TrainingSet(pixels.load([path for path, _ in images], model), labels, len(original))
        plan = make_plan(recipe, training_set, settings)
        curve = train(classifier, plan, training_set, settings, validate)
        run = run.model_copy(update={"steps": settings.steps, "images_seen": plan.images_seen})
    classifier.save(folder)
    val_accuracy = curve[-1]["val_accuracy"] if curve else validate()
    return run.model_copy(update={"val_accuracy": val_accuracy}), curve


if __name__ == "__main__":
    stage.run(main)
