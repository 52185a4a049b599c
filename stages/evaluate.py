"""Stage evaluate: test every seed of one method, with adapter and head as they were saved.

python -m stages.evaluate balancemix
accelerate launch --num_processes 2 -m stages.evaluate balancemix
"""

import torch

from ltgc.classifier import devices
from ltgc.classifier.inference import probabilities
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
from ltgc.pipeline.terminal import console
from ltgc.training.methods import METHODS


def main(method: str = "") -> None:
    if method not in METHODS:
        raise LTGCError(f"usage: python -m stages.evaluate METHOD, METHOD one of {', '.join(METHODS)}")
    section = params.load("data.source", "data.root", "data.images", "clip", "evaluate", "seeds")
    classes = files.read_csv(CLASSES, ClassRecord)
    test = [image for image in files.read_csv(MANIFEST, ImageRecord) if image.split == "test"]
    runs = {seed: files.read_record(MODELS / method / str(seed) / "run.json", Run) for seed in section.seeds}
    labels = torch.tensor([image.label for image in test], dtype=torch.int64)
    accelerator = devices.accelerator(section.evaluate.device)
    model = load_clip(section.clip, section.evaluate.device)
    root = image_root(section.data)
    test_pixels = pixels.load([image_file(root, image) for image in test], model)

    for seed, run in runs.items():
        scores = RunMetrics(skipped=run.skipped)
        predictions: list[Prediction] = []
        per_class: list[ClassAccuracy] = []
        if not run.skipped:
            network = load_classifier(MODELS / method / str(seed), model)
            probability = probabilities(
                network,
                test_pixels,
                section.evaluate.batch_size,
                section.evaluate.ensemble,
                section.evaluate.workers,
            )
            scores = metrics.run_metrics(probability, labels, classes)
            confidence, predicted = (column.tolist() for column in probability.max(-1))
            predictions = [
                Prediction(path=image.path, label=image.label, prediction=p, confidence=round(c, 4))
                for image, p, c in zip(test, predicted, confidence, strict=True)
            ]
            accuracy = metrics.per_class_accuracy(probability, labels, classes)
            per_class = [
                ClassAccuracy(
                    label=c.label, class_name=c.name, train=c.train, shot=c.shot, accuracy=metrics.percent(a)
                )
                for c, a in zip(classes, accuracy, strict=True)
            ]
        if not accelerator.is_main_process:
            continue
        files.write_json(RUN_METRICS / method / f"{seed}.json", scores.model_dump())
        files.write_records_csv(PREDICTIONS / method / f"{seed}.csv", predictions, Prediction)
        files.write_records_csv(PER_CLASS / method / f"{seed}.csv", per_class, ClassAccuracy)
        result = f"skipped: {run.skipped}" if run.skipped else f"all {scores.all} %, few {scores.few} %"
        console.print(f"{method}, seed {seed}: {result}")


if __name__ == "__main__":
    stage.run(main)
