"""Stage quality: how diverse the generated images are, how far from the originals, and which resemble test images.

python -m stages.quality
"""

from ltgc.clip.weights import load_clip
from ltgc.data.images import MAX_PIXELS
from ltgc.data.inspection import inspect_images
from ltgc.data.roots import image_root
from ltgc.evaluation import quality
from ltgc.pipeline import files, params, stage
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
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

    rows, found = measure(settings, classes, manifest, attempts) if attempts else ([], [])
    dropped = found if settings.quality.drop_contaminated else []
    files.write_jsonl(CLASS_QUALITY, rows)
    files.write_records_csv(CONTAMINATED, found, Contamination)
    # What train leaves out. A file of its own: a stricter search, with nothing dropped, runs no training again.
    files.write_records_csv(DROPPED, dropped, Contamination)
    files.write_json(QUALITY, quality.summary(rows, found, len(dropped)))
    console.print(
        f"{len(attempts):,} generated images of {len(rows):,} classes; nearly a test image: {len(found):,}, "
        f"dropped: {len(dropped):,}"
    )


def measure(
    settings: params.Params, classes: list[ClassRecord], manifest: list[ImageRecord], attempts: list[Attempt]
) -> tuple[list[ClassQuality], list[Contamination]]:
    model = load_clip(settings.clip)
    root = image_root(settings.data)
    labels = {attempt.label for attempt in attempts}
    generated = quality.look([attempt.image or "" for attempt in attempts], model, hashed=True)
    real = {}
    for split in ("train", "val"):
        own = [image for image in manifest if image.split == split and image.label in labels]
        seen = quality.look([root / image.path for image in own], model)
        real[split] = quality.by_label([image.label for image in own], seen.features)
    drawn = quality.by_label([attempt.label for attempt in attempts], generated.features)
    rows = quality.of_classes(classes, real["train"], drawn, real["val"])

    test = [image for image in manifest if image.split == "test"]
    looks = inspect_images(root, [image.path for image in test], MAX_PIXELS, hashed=True)
    for image, seen_of in zip(test, looks, strict=True):
        if seen_of.bad:
            raise files.bad_file(root / image.path, seen_of.bad)

    def cosine(i: int, image: ImageRecord) -> float:
        return float(generated.features[i] @ quality.look([root / image.path], model).features[0])

    found = quality.contaminated(
        attempts,
        generated,
        test,
        [seen_of.hash for seen_of in looks],
        cosine,
        distance=settings.quality.duplicate_distance,
        least_cosine=settings.quality.duplicate_cosine,
    )
    return rows, found


if __name__ == "__main__":
    stage.run(main)
