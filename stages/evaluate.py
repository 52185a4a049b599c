"""Stage evaluate: test every seed of one method, with adapter and head as they were saved.

python -m stages.evaluate balancemix
accelerate launch --num_processes 2 -m stages.evaluate balancemix
"""

import torch

from ltgc import artifacts, classifier, clip, data, devices, metrics, params, pixels, stage
from ltgc.artifacts import ClassAccuracy, ClassRecord, ImageRecord, Prediction, Run, RunMetrics
from ltgc.errors import LTGCError
from ltgc.methods import METHODS


def main(method: str = "") -> None:
    if method not in METHODS:
        raise LTGCError(f"usage: python -m stages.evaluate METHOD, METHOD one of {', '.join(METHODS)}")
    section = params.load("data.source", "data.root", "data.images", "clip", "evaluate", "seeds")
    classes = artifacts.read_csv(artifacts.CLASSES, ClassRecord)
    test = [image for image in artifacts.read_csv(artifacts.MANIFEST, ImageRecord) if image.split == "test"]
    runs = {
        seed: artifacts.read_record(artifacts.MODELS / method / str(seed) / "run.json", Run)
        for seed in section.seeds
    }
    labels = torch.tensor([image.label for image in test], dtype=torch.int64)
    accelerator = devices.accelerator(section.evaluate.device)
    model = clip.load(section.clip, section.evaluate.device)
    root = data.image_root(section.data)
    test_pixels = pixels.load([root / image.path for image in test], model)

    for seed, run in runs.items():
        scores = RunMetrics(skipped=run.skipped)
        predictions: list[Prediction] = []
        per_class: list[ClassAccuracy] = []
        if not run.skipped:
            network = classifier.load(artifacts.MODELS / method / str(seed), model)
            probabilities = classifier.probabilities(
                network,
                test_pixels,
                section.evaluate.batch_size,
                section.evaluate.ensemble,
                section.evaluate.workers,
            )
            scores = metrics.run_metrics(probabilities, labels, classes)
            confidence, predicted = (column.tolist() for column in probabilities.max(-1))
            predictions = [
                Prediction(path=image.path, label=image.label, prediction=p, confidence=round(c, 4))
                for image, p, c in zip(test, predicted, confidence, strict=True)
            ]
            accuracy = metrics.per_class_accuracy(probabilities, labels, classes)
            per_class = [
                ClassAccuracy(
                    label=c.label, class_name=c.name, train=c.train, shot=c.shot, accuracy=metrics.percent(a)
                )
                for c, a in zip(classes, accuracy, strict=True)
            ]
        if not accelerator.is_main_process:
            continue
        artifacts.write_json(artifacts.RUN_METRICS / method / f"{seed}.json", scores.model_dump())
        artifacts.write_records_csv(artifacts.PREDICTIONS / method / f"{seed}.csv", predictions, Prediction)
        artifacts.write_records_csv(artifacts.PER_CLASS / method / f"{seed}.csv", per_class, ClassAccuracy)
        result = f"skipped: {run.skipped}" if run.skipped else f"all {scores.all} %, few {scores.few} %"
        stage.console.print(f"{method}, seed {seed}: {result}")


if __name__ == "__main__":
    stage.run(main)
