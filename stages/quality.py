"""Stage quality: how diverse the generated images are, how far from the originals, and which resemble test images.

python -m stages.quality
"""

from collections import defaultdict

from ltgc.clip.weights import load_clip
from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.evaluation import quality
from ltgc.evaluation.quality import Drawing
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
    drawings = [
        Drawing(a.image, a.label)
        for a in files.each_jsonl(ATTEMPTS, Attempt)
        if a.verdict == "accepted" and a.image
    ]

    rows, contaminations = measure(settings, classes, drawings) if drawings else ([], [])
    dropped = contaminations if settings.quality.drop_contaminated else []
    files.write_jsonl(CLASS_QUALITY, rows)
    files.write_records_csv(CONTAMINATED, contaminations, Contamination)
    # What train leaves out. A file of its own: a stricter search, with nothing dropped, runs no training again.
    files.write_records_csv(DROPPED, dropped, Contamination)
    files.write_json(QUALITY, quality.summary(rows, len(contaminations), len(dropped)))
    console.print(
        f"{len(drawings):,} generated images of {len(rows):,} classes; nearly a test image: "
        f"{len(contaminations):,}, dropped: {len(dropped):,}"
    )


def measure(
    settings: params.Params, classes: list[ClassRecord], drawings: list[Drawing]
) -> tuple[list[ClassQuality], list[Contamination]]:
    clip = load_clip(settings.clip)
    root = image_root(settings.data)
    drawn: dict[int, list[images.Reference]] = defaultdict(list)
    for drawing in drawings:
        drawn[drawing.label].append(drawing.image)
    real: dict[tuple[int, Split], list[images.Reference]] = defaultdict(list)
    test: list[ImageRecord] = []
    for image in files.each_csv(MANIFEST, ImageRecord):
        if image.split == "test":
            test.append(image)
        elif image.label in drawn:
            real[image.label, image.split].append(image_file(root, image))

    # Class by class: the features of all images of ImageNet-LT are 600 MB.
    rows: list[ClassQuality] = []
    hashes: list[int | None] = []  # in the order of `drawings`, which are by class
    for c in classes:
        if c.label not in drawn:
            continue
        generated = quality.encode(drawn[c.label], clip, hashed=True)
        train, val = (quality.encode(real[c.label, split], clip).features for split in ("train", "val"))
        rows.append(quality.class_quality(c, train, generated.features, val))
        hashes += generated.hashes

    test_files = [image_file(root, image) for image in test]

    def cosine(i: int, j: int) -> float:
        pair = quality.encode([drawings[i].image, test_files[j]], clip).features
        return float(pair[0] @ pair[1])

    contaminations = quality.contaminated(
        drawings,
        {c.label: c.name for c in classes},
        hashes,
        test,
        quality.hash_images(test_files),
        cosine,
        distance=settings.quality.duplicate_distance,
        least_cosine=settings.quality.duplicate_cosine,
    )
    return rows, contaminations


if __name__ == "__main__":
    stage.run(main)
