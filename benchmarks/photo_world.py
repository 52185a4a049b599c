"""Real photos: does generated content help where nobody drew the world?

    python benchmarks/photo_world.py ../photos     # about 20 CPU minutes; writes results/photo_world.json

From a folder of class folders, all of its splits pooled, each photo gets one use: to train a small CLIP
(photo_clip.py), to be "drawn" by an OpenAI-compatible endpoint on this machine (photo_endpoint.py, which draws a
wrong class at times), validation, test, or the training photos, of which prepare cuts a long tail. The pipeline
then runs as a user's would: its stages as processes, with a params.yaml of their own; twice, without and with a
style that lies over the drawings and over no photo. All other settings are the default's: nothing is tuned here.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import photo_clip
import torch
import yaml
from photo_endpoint import SOURCE, Photos
from PIL import Image

from embedded import endpoint
from ltgc.clients import method_costs
from ltgc.data.sources.folder import IMAGE_SUFFIXES
from ltgc.data.splits import shuffled
from ltgc.evaluation.ablations import take_finished_runs
from ltgc.evaluation.loop_metrics import filter_quality
from ltgc.pipeline import files, side_folder
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.results import COMPARE, LOOPS, PAIRED

METHODS = ["clip_zero_shot", "clip_finetune", "balanced_photos", "balancemix", "ltgc_plus"]
STAGES = ["prepare", "describe", "extend", "templates", "generate", "quality", "train", "evaluate", "ask", "loops",
          "compare"]  # fmt: skip
WORLDS = {"same_domain": None, "style_shift": "vintage"}  # name -> t2i.style
TEST, VAL = (60, 0.3), (15, 0.08)  # at most so many of a class, and at most this share of it
CLIP, DRAWN = 0.45, 0.25  # of the others


class Truth:
    """What each drawing shows, by the class that the endpoint noted in it."""

    def represents(self, image: bytes, class_name: str) -> bool:
        return png_text(image)[SOURCE] == class_name

    def describes(self, text: str, class_name: str) -> bool:
        return True  # the endpoint's descriptions are of photos of the class


def png_text(image: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(image)) as opened:
        return {str(key): value for key, value in opened.info.items()}


def divide(source: Path, work: Path, seed: int) -> None:
    """Copy each photo of `source` into the folder of its one use, below `work`."""
    of_class: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            of_class.setdefault(path.parent.name, []).append(path)
    for name, paths in of_class.items():
        rest = shuffled(map(str, (path.relative_to(source) for path in paths)), seed, "photo world")
        for use, (most, share) in (("photos/test", TEST), ("photos/val", VAL)):
            count = min(most, int(share * len(paths)))
            copy(source, rest[:count], work / use / name)
            rest = rest[count:]
        clip, drawn = int(CLIP * len(rest)), int((CLIP + DRAWN) * len(rest))
        copy(source, rest[:clip], work / "clip-photos" / name)
        copy(source, rest[clip:drawn], work / "drawn-from" / name)
        copy(source, rest[drawn:], work / "photos/train" / name)


def copy(source: Path, paths: Iterable[str], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copy(source / path, folder / path.replace("/", "-"))


def run(folder: Path, changes: dict[str, Any], other: Path | None) -> dict[str, Any]:
    """The pipeline in `folder` with some params changed; its results.

    other: the folder of a world whose runs without drawings are the same here, and are not trained again.
    """
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *sections, last = dotted.split(".")
        reduce(getitem, sections, values)[last] = value
    with chdir(ROOT):
        side_folder.build(folder, values, side_folder.MADE | {"data", "feedback"})
    if other:
        with chdir(other):
            take_finished_runs(folder)
    environment = os.environ | {"LTGC_CACHE": str(folder.parent / "pool")}
    for stage in STAGES:
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True)
    with chdir(folder):
        loops = files.read_json(LOOPS) | {"filter": filter_quality(files.read_jsonl(ATTEMPTS, Attempt), Truth())}
        classes = files.read_csv(CLASSES, ClassRecord)
        images: dict[str, Any] = {"train": {c.name: c.train for c in classes}}
        images |= {split: sum(getattr(c, split) for c in classes) for split in ("val", "test")}
        return {
            "compare": files.read_json(COMPARE),
            "paired": files.read_json(PAIRED),
            "loops": loops,
            "costs": method_costs.collect(),
            "settings": {"images": images},
        }


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments of a world of photos."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, help="a folder to be made, and kept; none: a temporary one")
    parser.add_argument("--out", type=Path, help="the file to be written; none: below results/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument("--split-seed", type=int, default=0, help="which photo gets which use")
    parser.add_argument("--clip-steps", type=int, default=1200)
    parser.add_argument("--clip", type=Path, help="a CLIP that --train-clip made with this --split-seed")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--target", type=int, default=60, help="extend.target: photos and drawings of a class")
    parser.add_argument("--head", type=int, default=120, help="data.long_tail.head")
    parser.add_argument("--ratio", type=float, default=24, help="data.long_tail.ratio")
    parser.add_argument("--start-strengths", type=float, nargs="*", default=[], help="t2i.start_strengths")
    parser.add_argument("--wrong", type=float, default=0.2, help="share of drawings of another class")
    return parser


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("photos", type=Path, help="class folders, or folders of them (train, test, ...)")
    arguments.add_argument("--train-clip", type=Path, help="only train the CLIP of these photos, into this folder")
    args = arguments.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

    if args.train_clip:
        with tempfile.TemporaryDirectory() as folder:
            divide(args.photos, Path(folder), args.split_seed)
            photo_clip.train(Path(folder) / "clip-photos", args.train_clip, args.clip_steps)
        return
    if args.work:
        args.work.mkdir(parents=True)
        results = both_worlds(args, args.work.resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = both_worlds(args, Path(folder))
    out = args.out or ROOT / "results/photo_world.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


@contextmanager
def served(args: argparse.Namespace, work: Path) -> Iterator[tuple[str, Path]]:
    """The photos divided, a CLIP trained, and the endpoint running: its URL and the folder of the CLIP."""
    divide(args.photos, work, args.split_seed)
    clip = args.clip.resolve() if args.clip else work / "clip"
    if not args.clip:
        photo_clip.train(work / "clip-photos", clip, args.clip_steps)
    serve = [str(ROOT / "benchmarks/photo_endpoint.py"), "--photos", str(work / "drawn-from"), "--clip", str(clip)]
    with endpoint.running(*serve, "--wrong", str(args.wrong)) as url:
        yield url, clip


def changes(args: argparse.Namespace, work: Path, clip: Path, url: str, style: str | None) -> dict[str, Any]:
    """What such a world changes in params.yaml."""
    return {
        "data.source": "folder", "data.root": str(work / "photos"), "data.long_tail.head": args.head,
        "data.long_tail.ratio": args.ratio, "servers.base_url": url, "llm.model": Photos.chat,
        "vision.model": Photos.chat, "t2i.model": Photos.t2i, "t2i.style": style,
        "t2i.start_strengths": args.start_strengths, "budget.project": "photos",
        "clip.model": f"local-dir:{clip}", "clip.revision": None,
        "extend.target": args.target, f"prices.{Photos.chat}": {}, f"prices.{Photos.t2i}": {},
        "methods": args.methods, "seeds": args.seeds, "ask.max_images": 0, "train.device": "cpu",
        "evaluate.device": "cpu",
    }  # fmt: skip


def both_worlds(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """name of a world -> its results."""
    asked = {"photos_split": args.split_seed, "seeds": args.seeds, "clip_steps": args.clip_steps}
    asked |= {"extend.target": args.target, "wrong": args.wrong, "head": args.head, "ratio": args.ratio}
    asked |= {"t2i.start_strengths": args.start_strengths}
    results = {}
    with served(args, work) as (url, clip):
        asked |= {"clip_photos": sum(path.is_file() for path in (work / "clip-photos").rglob("*"))}
        other = None
        for world, style in WORLDS.items():
            results[world] = run(work / world, changes(args, work, clip, url, style), other)
            other = work / world
            results[world]["settings"] |= asked | {"t2i.style": style}
    return results


if __name__ == "__main__":
    main()
