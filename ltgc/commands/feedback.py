"""The trained model says what to draw next: a round of feedback/rivals.jsonl, which the stage extend reads.

    ltgc feedback                      # ten descriptions more for each tail class, on average
    dvc repro                          # asks for them, draws them, trains anew

What was asked and drawn before stays as it is. A control is written in place of a round by --unsteered, with which
every tail class gets as many and no question speaks of rivals, or by --random-rivals.
"""

import random
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from ltgc.clip.weights import load_clip
from ltgc.data.roots import image_root
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.artifacts.descriptions import EXTENDED, ExtendedDescription
from ltgc.pipeline.artifacts.feedback import RIVALS, Feedback
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import output
from ltgc.training import feedback
from ltgc.training.inputs import Inputs

A_CLASS = 10  # descriptions for a tail class on average, unless the user says how many in all
# On validation images of the drawn world 85 % of the tail classes' confusions are with the first rival, 88 to 91 %
# with one of two.
RIVALS_NAMED = 2
LEAST = 0.01  # of 100 images one is taken for the other: fewer are chance


Control = Literal["unsteered", "random_rivals"]


def main(descriptions: int | None, control: Control | None) -> None:
    """Add a round to RIVALS.

    Raises LTGCError where the round before is not drawn yet, and where no class is filled up.
    """
    section = params.load("data.source", "data.root", "data.images", "clip", "train", "extend.target")
    before = files.read_jsonl(RIVALS, Feedback) if RIVALS.exists() else []
    done = max((line.round for line in before), default=0)
    if done > max((d.feedback for d in files.read_jsonl(EXTENDED, ExtendedDescription)), default=0):
        raise LTGCError(f"{RIVALS}: round {done} is not asked for yet; run `dvc repro`, or delete its lines")
    inputs = Inputs(load_clip(section.clip, section.train.device), image_root(section.data))
    tail = [c for c in inputs.classes if c.train < section.extend.target]
    if not tail:
        raise LTGCError("extend.target: no class has fewer photos, so nothing is described or drawn")
    mutual = feedback.confusions(inputs, section.train.of("ltgc_plus"))
    total = A_CLASS * len(tail) if descriptions is None else descriptions
    rivals = feedback.rivals(mutual, RIVALS_NAMED, LEAST)
    new = plan(done + 1, mutual.sum(1).tolist(), rivals, inputs.classes, tail, total, control)
    files.write_jsonl(RIVALS, [*before, *new])
    output().print(table(new))


def plan(
    round: int,
    needs: list[float],
    rivals: list[list[int]],
    classes: list[ClassRecord],
    tail: list[ClassRecord],
    total: int,
    control: Control | None,
) -> list[Feedback]:
    """A round for `tail`. needs, rivals: of every class, by label (ltgc/training/feedback.py)."""
    unsteered = control == "unsteered"
    counts = feedback.divide(total, [1.0 if unsteered else needs[c.label] for c in tail])
    lines = []
    for c, count in zip(tail, counts, strict=True):
        if not count:
            continue
        named = [] if unsteered else [classes[label].name for label in rivals[c.label]]
        if control == "random_rivals":
            others = [other.name for other in classes if other.label != c.label]
            named = random.Random(f"{round}\n{c.name}").sample(others, len(named))
        need = float(f"{needs[c.label]:.4f}")
        lines.append(Feedback(round=round, class_name=c.name, descriptions=count, rivals=named, need=need))
    return lines


def table(lines: list[Feedback]) -> Table:
    table = Table(title=f"{RIVALS}: round {lines[0].round}" if lines else str(RIVALS), box=box.SIMPLE_HEAD)
    for heading in ("class", "confused", "descriptions", "rivals"):
        table.add_column(heading, justify="right" if heading in ("confused", "descriptions") else "left")
    for line in lines:
        cells = line.class_name, f"{line.need:.1%}", str(line.descriptions), ", ".join(line.rivals)
        table.add_row(*map(escape, cells))
    total = sum(line.descriptions for line in lines)
    table.caption = f"{total:,} descriptions, by confusions out of fold; now run `dvc repro`"
    return table
