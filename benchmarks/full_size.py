"""What stages need in memory for the artifacts of a whole data set, without a model, a server or an image.

    python benchmarks/full_size.py inat2018    # or imagenet_lt

Lists as long as the data set's are written: manifest, descriptions, templates, attempts, scores. Then run, each in
a process of its own: the stage loops; the filter of generate with 512 features a text, all of them 0; train up to
the first step of `balanced_photos` and of `ltgc_plus`, with 512 random features an image, where a probe is trained
for one step on one part of the images; what report knows of photos and drawings. iNaturalist 2018 has 8,142
classes, 461,939 photos, 225,630 descriptions of photos, 549,843 others and 631,670 attempts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from instant_world import SHAPES, Shape, write_params

WIDTH = 512  # features of a text or an image, as ViT-B's
WORDS = "long hairy petals {}, red stone wheels {}, tall bright doors"
SCENE = "in tall yellow stones"


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill(SHAPES[name], Path(folder))
        for part in PARTS:
            start = time.perf_counter()
            # A process of its own, started by a small one: the peak of a child begins with its parent's.
            process = subprocess.Popen([sys.executable, __file__, "part", part], cwd=folder)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6
            wall = time.perf_counter() - start
            print(f"{name}, {part}: {wall:.0f} s, {cpu:.0f} s of computing, {peak:,.0f} MB", flush=True)
            if status:
                raise SystemExit(status)


def fill(shape: Shape, folder: Path) -> None:
    """Lines written by hand: two million records would take minutes."""
    counts = shape.counts(shape.classes)
    write_params(folder, Path("photos"), "clip", "http://127.0.0.1/v1", shape.target, 1)
    for part in ("data", "descriptions", "generated", "metrics/calls"):
        (folder / part).mkdir(parents=True)
    for stage in ("describe", "extend", "templates", "generate", "ask"):
        (folder / f"metrics/calls/{stage}.json").write_text('{"calls":1,"prompt_tokens":1,"completion_tokens":1}')
    with (
        (folder / "data/manifest.csv").open("w") as manifest,
        (folder / "data/classes.csv").open("w") as classes,
        (folder / "descriptions/existing.jsonl").open("w") as existing,
        (folder / "descriptions/extended.jsonl").open("w") as extended,
        (folder / "descriptions/templates.jsonl").open("w") as templates,
        (folder / "generated/attempts.jsonl").open("w") as attempts,
        (folder / "generated/real_scores.csv").open("w") as real,
        (folder / "generated/dropped.csv").open("w") as dropped,
    ):
        manifest.write("path,label,class_name,split,hash\n")
        classes.write("label,name,slug,train,val,test,shot,context\n")
        real.write("label,class_name,image,score,threshold\n")
        dropped.write("image,label,class_name,test,test_class,distance,cosine\n")
        for y, train in enumerate(counts):
            name, slug = f"class {y:04d}", f"{y:04d}-class-{y:04d}"
            shot = "many" if train > 100 else "medium" if train >= 20 else "few"
            classes.write(f"{y},{name},{slug},{train},{shape.val},{shape.test},{shot},\n")
            for split, count in (("train", train), ("val", shape.val), ("test", shape.test)):
                manifest.writelines(
                    f"{split}/{name}/{k:04d}.jpg,{y},{name},{split},{k:032x}\n" for k in range(count)
                )
            of = {"label": y, "class_name": name}
            text = f"A photo of the class {name} with x."
            templates.write(line(of | {"template": text, "features": ["x"], "source": "llm", "reason": None}))
            if train >= shape.target:
                continue
            for k in range(train):
                image = f"train/{name}/{k:04d}.jpg"
                existing.write(line(of | {"image": image} | description(name, k, y, True) | {"replies": 1}))
                real.write(f"{y},{name},{image},0.2,0.0\n")
            wanted = shape.target - train
            for i in range(wanted * 11 // 10):
                said = description(name, i, y, i < wanted)
                extended.write(line(of | {"index": i, "round": 1} | said))
                for n, verdict in enumerate(verdicts(i) if i < wanted else []):
                    id = f"{slug}/{i:04d}-{n}"
                    shard = "accepted" if verdict == "accepted" else "rejected"
                    attempt = of | {"id": id, "index": i, "round": n, "prompt": said["description"], "seed": i}
                    attempt |= {"image": f"generated/{shard}/{slug}.tar/{i:04d}-{n}.png", "score": 0.25 - i / 400}
                    attempt |= {"threshold": 0.0, "verdict": verdict, "refines": None, "reason": None}
                    attempts.write(line(attempt))


def line(record: dict[str, object]) -> str:
    return json.dumps(record) + "\n"


def description(name: str, i: int, y: int, kept: bool) -> dict[str, object]:
    features = WORDS.format(i, y)
    said = {
        "description": f"A photo of the class {name}, {features}, {SCENE}.",
        "features": features,
        "scene": SCENE,
    }
    return said | {"kept": kept, "reason": None if kept else "repeats"}


def verdicts(i: int) -> list[str]:
    """One description in four is drawn twice."""
    return ["refined", "accepted"] if i % 4 == 0 else ["accepted"]


# --- in processes of their own ---


def loops() -> None:
    from stages import loops

    loops.main()


def filter_texts() -> None:
    import torch

    from ltgc.clip.contrast import Contrast
    from ltgc.pipeline import files
    from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
    from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExistingDescription, ExtendedDescription
    from ltgc.pipeline.by_class import ByClass

    class NoClip:
        logit_scale = 100.0

        def text_features(self, texts: list[str]) -> torch.Tensor:
            return torch.zeros(len(texts), WIDTH).add_(0.0)

    classes = files.read_csv(CLASSES, ClassRecord)
    existing, extended = ByClass(EXISTING, ExistingDescription), ByClass(EXTENDED, ExtendedDescription)

    def listed(label: int) -> list[ExistingDescription | ExtendedDescription]:
        return [*existing.of(label), *(d for d in extended.of(label) if d.kept)]

    Contrast(NoClip(), [c.name for c in classes], classes, listed, 3.0)  # type: ignore[arg-type]


def first_heads() -> None:
    import torch
    import torch.nn.functional as F

    from ltgc.clip.pixels import FilePixels
    from ltgc.pipeline import params
    from ltgc.pipeline.settings.training import Method
    from ltgc.training import probe, transfer
    from ltgc.training.first_head import probe_first, weigh_drawings
    from ltgc.training.inputs import Inputs
    from ltgc.training.methods import METHODS
    from ltgc.training.plan import TrainingSet, make_plan

    class RandomVisual(torch.nn.Module):
        preprocess_cfg = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest"}  # noqa: RUF012

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(images), WIDTH)

    class RandomClip:
        model = SimpleNamespace(visual=RandomVisual())
        device, preprocess, logit_scale = torch.device("cpu"), None, 100.0

        def pixels(self, image: object) -> torch.Tensor:
            return torch.zeros(3, 224, 224, dtype=torch.uint8)

        def text_features(self, texts: list[str]) -> torch.Tensor:
            return F.normalize(torch.randn(len(texts), WIDTH), dim=-1)

    def first_part(images: int, classes: int) -> Sequence[torch.Tensor]:
        return parts(images, classes)[:1]

    def trained_on_a_part(*samples: Any) -> torch.Tensor:
        with patch.object(probe, "parts", first_part):
            return train_head(*samples)

    parts, train_head = probe.parts, probe.train_head
    FilePixels.__getitem__ = lambda self, rows: torch.zeros(len(rows), 3, 8, 8)  # type: ignore[method-assign]
    probe.STEPS = transfer.STEPS = 1
    probe.train_head, transfer.parts = trained_on_a_part, first_part  # type: ignore[assignment]
    torch.manual_seed(0)
    clip: Any = RandomClip()
    inputs, train = Inputs(clip, Path("photos")), params.load("train").train
    photos = inputs.photos("train")
    methods: tuple[Method, Method] = ("balanced_photos", "ltgc_plus")
    for method in methods:
        recipe, settings = METHODS[method], train.of(method)
        drawings = [] if method == "balanced_photos" else inputs.drawings(settings.generated)
        head = torch.nn.Parameter(clip.text_features(inputs.classes))
        classifier: Any = SimpleNamespace(head=head, logit_scale=clip.logit_scale)
        settings, _ = weigh_drawings(recipe, settings, classifier, drawings, inputs)
        probe_first(recipe, settings, classifier, drawings, inputs)
        images = photos + drawings
        data = TrainingSet(*inputs.load(images), original=len(photos), strengths=inputs.strengths(images))
        make_plan(recipe, data, settings)
        print(f"{method}: {len(photos):,} photos and {len(drawings):,} drawings")


def report_inputs() -> None:
    from ltgc.pipeline import files
    from ltgc.pipeline.artifacts.dataset import MANIFEST, ImageRecord
    from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExistingDescription, ExtendedDescription
    from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
    from ltgc.pipeline.by_class import ByClass
    from ltgc.report import figures, sections, selection
    from stages.report import score_rows

    photos = selection.originals(files.each_csv(MANIFEST, ImageRecord), Path("photos"))
    attempts = ByClass(ATTEMPTS, Attempt)
    described = len(ByClass(EXISTING, ExistingDescription)) + len(ByClass(EXTENDED, ExtendedDescription))
    sections.rounds(attempts)
    figures.scores(score_rows())
    print(f"{len(photos):,} classes, {described:,} descriptions, {len(attempts):,} attempts")


PARTS: dict[str, Callable[[], None]] = {
    "loops": loops,
    "filter": filter_texts,
    "train": first_heads,
    "report": report_inputs,
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["part", part]:
            PARTS[part]()
        case [name]:
            main(name)
