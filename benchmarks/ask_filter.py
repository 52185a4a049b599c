"""A yes/no question a feature to the vision model as the filter, against the filter that ran; the same drawings.

    dvc repro loops && python benchmarks/ask_filter.py      # 10 CPU seconds after the run

Every drawing of generated/ is shown to the embedded vision model, which is asked of each feature whether it is
there: those of the description that was drawn, those of the class's template C_y, or both. A drawing is accepted
where enough of the answers are yes. One request a drawing can hold all of its questions; CLIP needs none.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu

from embedded import truth, words
from embedded.eyes import eyes
from embedded.wildflowers import Flower
from ltgc.data import images
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import TEMPLATES, ClassTemplate
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt

SHARES = (0.5, 0.8, 1.0)  # of the answers, that have to be yes


class Judged(NamedTuple):
    right: bool
    misdescribed: bool  # the description named what the class never shows
    margin: float  # of the filter that ran: score less threshold
    described: list[bool]  # the answers about the features of the description
    typical: list[bool]  # about those of C_y


def answers(seen: Flower, text: str) -> list[bool]:
    """Whether the flower shows each feature that a text names."""
    named = {axis: value for axis, value in words.read(text).items() if axis != "scene"}
    if named.get("form") != "open":
        named.pop("count", None)
    return [getattr(seen, axis) == value for axis, value in named.items()]


def judge(attempt: Attempt, template: str) -> Judged:
    assert attempt.image and attempt.score is not None and attempt.threshold is not None
    encoded = images.read(attempt.image)
    with Image.open(io.BytesIO(encoded)) as opened:
        seen = eyes().look(opened.convert("RGB"))
    return Judged(
        bool(truth.represents(encoded, attempt.class_name)),
        not truth.describes(attempt.prompt, attempt.class_name),
        attempt.score - attempt.threshold,
        answers(seen, attempt.prompt),
        answers(seen, template),
    )


def share(found: list[bool]) -> float:
    return sum(found) / len(found) if found else 1.0


def row(judged: list[Judged], score: Callable[[Judged], float], least: float) -> list[str]:
    right, wrong = ([score(j) for j in judged if j.right is kind] for kind in (True, False))
    accepted = sum(s >= least for s in right), sum(s >= least for s in wrong)
    auroc = mannwhitneyu(right, wrong).statistic / len(right) / len(wrong)
    causes = [[score(j) < least for j in judged if not j.right and j.misdescribed is m] for m in (True, False)]
    return [
        f"{accepted[0] / len(right):.1%}",
        f"{accepted[1] / sum(accepted):.1%}",
        f"{auroc:.3f}",
        *(f"{sum(found)} of {len(found)}" for found in causes),
    ]


def main() -> None:
    torch.set_num_threads(1)
    templates = {t.label: t.template for t in files.read_jsonl(TEMPLATES, ClassTemplate)}
    scored = [a for a in files.read_jsonl(ATTEMPTS, Attempt) if a.image and a.score is not None]
    judged = [judge(a, templates[a.label]) for a in scored]
    table = Table(title=f"{len(judged):,} drawings, {sum(not j.right for j in judged):,} of them wrong")
    for heading in ("accepted where", "right accepted", "wrong of accepted", "AUROC", "wrong description found",
                    "disobeyed found", "questions a drawing"):  # fmt: skip
        table.add_column(heading)
    table.add_row("the filter that ran", *row(judged, lambda j: j.margin, 0.0), "0")
    asked: dict[str, Callable[[Judged], list[bool]]] = {
        "description": lambda j: j.described,
        "C_y": lambda j: j.typical,
        "both": lambda j: j.described + j.typical,
    }
    for name, of in asked.items():
        questions = sum(len(of(j)) for j in judged) / len(judged)
        for least in SHARES:
            cells = row(judged, lambda j, of=of: share(of(j)), least)  # type: ignore[misc]
            table.add_row(f"{name}, {least:.0%} yes", *cells, f"{questions:.1f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
