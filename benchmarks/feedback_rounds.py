"""Does feedback help? Rounds of `ltgc feedback` and its two controls, in the pipeline's own stages.

    python benchmarks/feedback_rounds.py                      # after dvc repro; writes results/feedback.json
    python benchmarks/feedback_rounds.py --photos ../photos   # real photos; writes results/feedback_photos.json

Each arm starts from the same descriptions and drawings, and asks for as many more in each round: steered by the
model, spread evenly over the tail classes without a word of rivals, or with random rivals. Three worlds: the drawn
one, the same with a style over the drawings that no photo has, and photos (photo_world.py).

What is tested is the head from which `ltgc_plus` fine-tunes, on CLIP as it is: with the default validation leaves
it there or nearly (α 0, 0 and 0.3 of three seeds), it costs seconds, and it depends on no seed. Replicates are
other descriptions and other drawings, the luck that counts here: --generations 0 1 2. About 4 CPU minutes a drawn
world and generation; of photos 1 or 2, after 5 for their CLIP.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import chdir
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import photo_world
import yaml
from scipy.stats import spearmanr

from ltgc.commands import feedback
from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.data.truth import DrawingTruth, known_truth
from ltgc.evaluation import uncertainty
from ltgc.pipeline import files, params, side_folder
from ltgc.pipeline.artifacts.dataset import MANIFEST, ImageRecord
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.artifacts.feedback import RIVALS, Feedback
from ltgc.pipeline.artifacts.replies import CALLS
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
from ltgc.pipeline.params import PARAMS
from stages import describe, evaluate, extend, generate, prepare, templates, train

METHOD, ROUNDS = "ltgc_plus", 2
HEAD_ALONE = {
    "methods": [METHOD],
    "seeds": [0],
    "train.steps": 10,
    "train.batch_size": 16,
    f"train.own.{METHOD}.steps_factor": 1.0,
    f"train.own.{METHOD}.interpolate": 0.0,
}
ARMS: dict[str, feedback.Control | None] = {
    "steered": None,
    "unsteered": "unsteered",
    "random_rivals": "random_rivals",
}
WORLDS = {"drawn": None, "style_shift": "vintage"}  # name -> t2i.style
RUNS = Path("ablations/runs/feedback")
COUNTED = ("calls", "prompt_tokens", "completion_tokens", "drawings")


class Row:
    """What the working directory holds after a round: the run of METHOD, and what was asked and drawn."""

    def __init__(self) -> None:
        self.run = files.read_record(RUN_METRICS / METHOD / "0.json", RunMetrics)
        self.drawings_weight = files.read_record(MODELS / METHOD / "0" / "run.json", Run).drawings_weight
        self.predictions = files.read_csv(PREDICTIONS / METHOD / "0.csv", Prediction)
        self.classes = files.read_csv(PER_CLASS / METHOD / "0.csv", ClassAccuracy)
        asked = [files.read_json(CALLS / f"{name}.json") for name in ("extend", "generate")]
        self.asked = {name: sum(of.get(name, 0) for of in asked) for name in COUNTED}
        rounds = {(d.label, d.index): d.feedback for d in files.read_jsonl(EXTENDED, ExtendedDescription)}
        attempts = [a for a in files.read_jsonl(ATTEMPTS, Attempt) if a.verdict == "accepted" and a.image]
        self.accepted = [(rounds[a.label, a.index], a.class_name, images.read(a.image or "")) for a in attempts]

    @property
    def right(self) -> np.ndarray:
        """(1, test images)"""
        return np.array([[p.prediction == p.label for p in self.predictions]])


def measure(folder: Path, changes: Mapping[str, Any], truth: DrawingTruth) -> dict[str, Any]:
    """Every arm and round of one world in `folder`, whose `base` holds what comes before any round."""
    base = folder / "base"
    with chdir(base):
        before = tested()
    rows, rounds, counts = {"before": before}, {}, Counter[int]()
    for arm, control in ARMS.items():
        place = folder / arm
        build(place, changes, base)
        for made in (EXISTING.parent, ATTEMPTS.parent):
            shutil.copytree(base / made, place / made, dirs_exist_ok=True)
        files.write_jsonl(place / RIVALS, [])
        with chdir(place):
            for number in range(1, ROUNDS + 1):
                feedback.main(None, control)
                extend.main()  # the templates are made of the first lists alone
                counts = leave(counts)
                generate.main()
                rows[f"{arm}_{number}"] = tested()
        rounds[arm] = files.read_jsonl(place / RIVALS, Feedback)
    named = {line.class_name: line.rivals for line in rounds["steered"] if line.round == 1}
    return {
        "rows": {name: figures(row, before, named, truth) for name, row in rows.items()},
        "less": {f"{name} less {other}": less(rows[name], rows[other]) for name, other in pairs()},
        "foretold": foretold(before, [line for line in rounds["steered"] if line.round == 1]),
        "rounds": {arm: [line.model_dump() for line in lines] for arm, lines in rounds.items()},
    }


def leave(counts: Counter[int]) -> Counter[int]:
    """Leave as many descriptions of each round as `counts` has, evenly spaced, so that all arms draw as many.

    Where it has none of a round yet all are left. Returns how many there are: of the first arm, the steered one.
    """
    records = files.read_jsonl(EXTENDED, ExtendedDescription)
    for number in {d.feedback for d in records if d.feedback}:
        kept = [i for i, d in enumerate(records) if d.kept and d.feedback == number]
        count = min(counts[number] or len(kept), len(kept))
        for i in set(kept) - {kept[k * len(kept) // count] for k in range(count)}:
            records[i] = records[i].model_copy(update={"kept": False, "reason": "over_target"})
        counts.setdefault(number, count)
    files.write_jsonl(EXTENDED, records)
    return counts


def pairs() -> list[tuple[str, str]]:
    """The rows that are compared: each with what was before, and the steered ones with their controls."""
    controls = [arm for arm in ARMS if arm != "steered"]
    numbers = range(1, ROUNDS + 1)
    return [(f"{arm}_{n}", "before") for arm in ARMS for n in numbers] + [
        (f"steered_{n}", f"{control}_{n}") for control in controls for n in numbers
    ]


def build(folder: Path, changes: Mapping[str, Any], source: Path | None = None) -> None:
    """Make a folder in which stages run, with the data set of the folder `source`."""
    with chdir(ROOT):
        values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
        for dotted, value in changes.items():
            *sections, last = dotted.split(".")
            reduce(getitem, sections, values)[last] = value
        side_folder.build(folder, values, side_folder.MADE | {"feedback", "data"})
    if source and not (folder / "data").exists():
        (folder / "data").symlink_to((source / "data").resolve(), target_is_directory=True)


def tested() -> Row:
    train.main(METHOD)
    evaluate.main(METHOD)
    return Row()


def figures(row: Row, before: Row, rivals: Mapping[str, list[str]], truth: DrawingTruth) -> dict[str, Any]:
    """Accuracies in percent, what the rounds asked and drew, and how many of their drawings were accepted.

    right, apart: of the accepted drawings of rounds, or of the first list's where there was no round, how many
    represent their class, and how many represent none of the rivals that the model names for it.
    """
    added = [(name, image) for number, name, image in row.accepted if number or row is before]
    right = [bool(truth.represents(image, name)) for name, image in added]
    apart = [not any(truth.represents(i, rival) for rival in rivals.get(name, [])) for name, i in added]
    return {
        "accuracy": row.run.model_dump(exclude={"skipped"}),
        "cost": {name: count - before.asked[name] * (row is not before) for name, count in row.asked.items()},
        "accepted": len(added),
        "drawings_weight": row.drawings_weight,  # 0: validation says that they do not help, and none is sampled
        "right": round(float(np.mean(right)), 3),
        "apart": round(float(np.mean(apart)), 3),
    }


def less(row: Row, other: Row) -> dict[str, dict[str, float]]:
    """The difference of two rows in points, and its standard deviation over resampled test images."""
    labels = np.array([p.label for p in row.predictions])
    stds = uncertainty.image_std({"row": row.right, "other": other.right}, labels, row.classes, "other")["row"]
    return {m: {"mean": getattr(row.run, m) - getattr(other.run, m), "image_std": std} for m, std in stds.items()}


def foretold(before: Row, lines: list[Feedback]) -> dict[str, float]:
    """How well the first round knew what `before` gets wrong on the test images, of which it has seen none.

    errors: on test images of its classes; by_rivals: the share of them that takes the class for one of its rivals;
    need_and_error: rank correlation, over the classes, of its need and its error on test images.
    """
    names, first = {c.label: c.class_name for c in before.classes}, {line.class_name: line for line in lines}
    told = [(names[p.label], names[p.prediction]) for p in before.predictions if names[p.label] in first]
    wrong = [(name, taken) for name, taken in told if name != taken]
    errors = [sum(n == name for n, _ in wrong) / sum(n == name for n, _ in told) for name in first]
    needs = [line.need or 0.0 for line in lines]
    return {
        "errors": len(wrong),
        "by_rivals": round(float(np.mean([taken in first[name].rivals for name, taken in wrong])), 3),
        "need_and_error": round(float(spearmanr(needs, errors)[0]), 2),
    }


def world(
    folder: Path, source: Path, changes: Mapping[str, Any], generation: int, truth: DrawingTruth
) -> dict[str, Any]:
    """What is measured of one world and generation, on the data set and its descriptions in `source`."""
    changes = {**changes, **HEAD_ALONE, "llm.seed": generation, "t2i.seed": generation}
    base = folder / "base"
    build(base, changes, source)
    files.write_bytes(base / EXISTING, (source / EXISTING).read_bytes())
    # As quality leaves it by default (drop_contaminated: false).
    files.write_records_csv(base / DROPPED, [], Contamination)
    with chdir(base):
        for stage in (extend, templates, generate):
            stage.main()
    return measure(folder, changes, truth)


def drawn_world(folder: Path, style: str | None, generation: int) -> dict[str, Any]:
    truth = known_truth("wildflowers")
    assert truth
    found = world(folder, ROOT, {"t2i.style": style}, generation, truth)
    with chdir(folder / "base"):
        found["foretold"]["ambiguous"] = ambiguous(Row(), truth)
    return found


def ambiguous(before: Row, truth: DrawingTruth) -> float:
    """The share of the tail classes' wrong test images that could as well be of the class they were taken for."""
    classes = {c.label: c for c in before.classes}
    settings = params.load("data.source", "data.root", "data.images", "extend.target")
    of_path = {image.path: image for image in files.read_csv(MANIFEST, ImageRecord)}
    root = image_root(settings.data)
    wrong = [p for p in before.predictions if p.label != p.prediction]
    wrong = [p for p in wrong if classes[p.label].train < settings.extend.target]
    could_be = [
        bool(truth.represents(images.read(image_file(root, of_path[p.path])), classes[p.prediction].class_name))
        for p in wrong
    ]
    return round(float(np.mean(could_be)), 3)


def photo_worlds(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """generation -> what is measured on the photos, all of them divided alike and with one CLIP."""
    os.environ["LTGC_CACHE"] = str(work / "pool")
    with photo_world.served(args, work) as (url, clip):
        changes = photo_world.changes(args, work, clip, url, None)
        described = work / "described"
        build(described, changes)
        with chdir(described):
            prepare.main()
            describe.main()
        truth = photo_world.Truth()
        return {str(g): world(work / str(g), described, changes, g, truth) for g in args.generations}


def main() -> None:
    parser = photo_world.parser(__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="class folders; none: the drawn worlds")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--generations", type=int, nargs="+", default=[0], help="llm.seed and t2i.seed")
    args = parser.parse_args()
    out = args.out or ROOT / "results" / ("feedback_photos.json" if args.photos else "feedback.json")
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        if args.photos:
            results["photos"] = photo_worlds(args, (args.work or Path(temporary)).resolve())
        else:
            for name in args.worlds:
                results[name] = {
                    str(g): drawn_world(ROOT / RUNS / f"{name}-{g}", WORLDS[name], g) for g in args.generations
                }
    files.write_json(out, results)


if __name__ == "__main__":
    main()
