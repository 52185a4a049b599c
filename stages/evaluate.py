"""Stage evaluate: test every run of params.yaml, with adapter and head as they were saved.

python -m stages.evaluate                  # all methods and seeds
python -m stages.evaluate balancemix       # all seeds of one method
accelerate launch --num_processes 2 -m stages.evaluate
"""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from ltgc.classifier import devices
from ltgc.classifier.inference import Predicted, predict
from ltgc.classifier.network import load_classifier
from ltgc.clip import pixels
from ltgc.clip.weights import load_clip
from ltgc.data.roots import image_file, image_root
from ltgc.evaluation import metrics
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.runs import (
    MODELS,
    PER_CLASS,
    PREDICTIONS,
    RUN_METRICS,
    ClassAccuracy,
    Prediction,
    Run,
    RunMetrics,
)
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import Method
from ltgc.pipeline.terminal import console


def main(method: str = "") -> None:
    if method and method not in get_args(Method):
        raise LTGCError(f"usage: python -m stages.evaluate [METHOD], METHOD one of {', '.join(get_args(Method))}")
    section = params.load("data.source", "data.root", "data.images", "clip", "evaluate", "methods", "seeds")
    settings = section.evaluate
    classes = files.read_csv(CLASSES, ClassRecord)
    test = [image for image in files.each_csv(MANIFEST, ImageRecord) if image.split == "test"]
    tested = [MODELS / m / str(s) for m in ([method] if method else section.methods) for s in section.seeds]
    runs = [files.read_record(folder / "run.json", Run) for folder in tested]
    writes = devices.accelerator(settings.device).is_main_process  # before CLIP: this gives each process its GPU
    clip = load_clip(section.clip, settings.device)
    root = image_root(section.data)
    images = pixels.load([image_file(root, image) for image in test], clip)
    for folder, run in zip(tested, runs, strict=True):
        if run.skipped:
            if writes:
                write(run, RunMetrics(skipped=run.skipped), [], [])
            continue
        classifier = load_classifier(folder, clip)
        found = predict(classifier, images, settings.batch_size, settings.ensemble, settings.workers)
        scores = metrics.run_metrics(*found, labels(test), classes)
        if writes:
            write(run, scores, predictions(found, test), accuracies(found.labels, test, classes))


def labels(test: Sequence[ImageRecord]) -> Tensor:
    return torch.tensor([image.label for image in test], dtype=torch.int64)


def predictions(found: Predicted, test: Sequence[ImageRecord]) -> list[Prediction]:
    return [
        Prediction(path=image.path, label=image.label, prediction=label, confidence=round(confidence, 4))
        for image, confidence, label in zip(test, *(column.tolist() for column in found), strict=True)
    ]


def accuracies(
    predicted: Tensor, test: Sequence[ImageRecord], classes: Sequence[ClassRecord]
) -> list[ClassAccuracy]:
    accuracy = metrics.per_class_accuracy(predicted, labels(test), classes)
    return [
        ClassAccuracy(label=c.label, class_name=c.name, train=c.train, shot=c.shot, accuracy=metrics.percent(a))
        for c, a in zip(classes, accuracy, strict=True)
    ]


def write(
    run: Run, scores: RunMetrics, predicted: Sequence[Prediction], per_class: Sequence[ClassAccuracy]
) -> None:
    files.write_json(RUN_METRICS / run.method / f"{run.seed}.json", scores.model_dump())
    files.write_records_csv(PREDICTIONS / run.method / f"{run.seed}.csv", predicted, Prediction)
    files.write_records_csv(PER_CLASS / run.method / f"{run.seed}.csv", per_class, ClassAccuracy)
    result = f"skipped: {run.skipped}" if run.skipped else f"all {scores.all} %, few {scores.few} %"
    console.print(f"{run.method}, seed {run.seed}: {result}")


if __name__ == "__main__":
    stage.run(main)
