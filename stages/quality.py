"""Stage quality: how diverse the generated images are, how far from the originals, and which resemble test images.

python -m stages.quality
"""

from ltgc.clip.weights import load_clip
from ltgc.data.inspection import perceptual_hashes
from ltgc.data.roots import image_file, image_root
from ltgc.evaluation import quality
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord, Split
from ltgc.pipeline.artifacts.drawings import (
    ATTEMPTS,
    CLASS_QUALITY,
    CONTAMINATED,
    DROPPED,
    Attempt,
    ClassQuality,
    Contamination,
)
from ltgc.pipeline.artifacts.results import QUALITY
from ltgc.pipeline.terminal import console


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images", "clip", "quality")
    classes = files.read_csv(CLASSES, ClassRecord)
    manifest = files.read_csv(MANIFEST, ImageRecord)
    attempts = [a for a in files.read_jsonl(ATTEMPTS, Attempt) if a.verdict == "accepted"]

    rows, contaminations = measure(settings, classes, manifest, attempts) if attempts else ([], [])
    dropped = contaminations if settings.quality.drop_contaminated else []
    files.write_jsonl(CLASS_QUALITY, rows)
    files.write_records_csv(CONTAMINATED, contaminations, Contamination)
    # What train leaves out. A file of its own: a stricter search, with nothing dropped, runs no training again.
    files.write_records_csv(DROPPED, dropped, Contamination)
    files.write_json(QUALITY, quality.summary(rows, len(contaminations), len(dropped)))
    console.print(
        f"{len(attempts):,} generated images of {len(rows):,} classes; nearly a test image: "
        f"{len(contaminations):,}, dropped: {len(dropped):,}"
    )


def measure(
    settings: params.Params, classes: list[ClassRecord], manifest: list[ImageRecord], attempts: list[Attempt]
) -> tuple[list[ClassQuality], list[Contamination]]:
    clip = load_clip(settings.clip)
    root = image_root(settings.data)
    labels = {attempt.label for attempt in attempts}

    def real_features(split: Split) -> dict[int, quality.Features]:
        images = [image for image in manifest if image.split == split and image.label in labels]
        encoded = quality.encode([image_file(root, image) for image in images], clip)
        return quality.by_label([image.label for image in images], encoded.features)

    generated = quality.encode([attempt.image or "" for attempt in attempts], clip, hashed=True)
    generated_features = quality.by_label([attempt.label for attempt in attempts], generated.features)
    rows = quality.class_quality(classes, real_features("train"), generated_features, real_features("val"))

    test = [image for image in manifest if image.split == "test"]
    test_files = [image_file(root, image) for image in test]

    def cosine(i: int, j: int) -> float:
        return float(generated.features[i] @ quality.encode([test_files[j]], clip).features[0])

    contaminations = quality.contaminated(
        attempts,
        generated.hashes,
        test,
        perceptual_hashes(test_files),
        cosine,
        distance=settings.quality.duplicate_distance,
        least_cosine=settings.quality.duplicate_cosine,
    )
    return rows, contaminations


if __name__ == "__main__":
    stage.run(main)
