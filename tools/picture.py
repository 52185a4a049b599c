"""The picture of the README, made of one real refinement of the last `dvc repro`.

    python -m tools.picture         # writes docs/pipeline.png

Shows the pipeline from left to right with what flows through it: photos of one rare class, what the vision
model says of them, what the language model adds, a drawing that CLIP refused, its refinement, and the result.
"""

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from ltgc.data import images
from ltgc.data.roots import image_file, image_root
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord, ImageRecord
from ltgc.pipeline.artifacts.descriptions import (
    EXISTING,
    EXTENDED,
    TEMPLATES,
    ClassTemplate,
    ExistingDescription,
    ExtendedDescription,
)
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.results import COMPARE

OUT = Path("docs/pipeline.png")
INK, SOFT, GOOD, BAD = "#1f2933", "#52606d", "#2f855a", "#c53030"


def tail_of(text: str, class_name: str) -> str:
    """A description without the words that all descriptions share."""
    return text.split(class_name, 1)[-1].strip(" ,.")


def box(axes: Axes, x: float, title: str, stage: str, width: float = 1.9) -> None:
    axes.add_patch(FancyBboxPatch((x, 0.05), width, 3.3, boxstyle="round,pad=0.02", fc="white", ec="#cbd2d9"))
    axes.text(x + 0.1, 3.2, title, fontsize=9.5, weight="bold", color=INK, va="top")
    axes.text(x + 0.1, 2.98, stage, fontsize=8, color=SOFT, va="top", family="monospace")


def picture(axes: Axes, path: images.Reference, x: float, y: float, size: float, edge: str = "#9aa5b1") -> None:
    axes.imshow(images.load(path), extent=(x, x + size, y, y + size), interpolation="nearest", zorder=3)
    axes.add_patch(plt.Rectangle((x, y), size, size, fill=False, ec=edge, lw=2, zorder=4))


def words(axes: Axes, x: float, y: float, text: str, width: int = 29, colour: str = INK) -> None:
    axes.text(x, y, "\n".join(textwrap.wrap(text, width)), fontsize=7.3, color=colour, va="top", linespacing=1.25)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = SOFT) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, lw=1.6, zorder=5)
    )


def main() -> None:
    settings = params.load("data.source", "data.root", "data.images")
    root = image_root(settings.data)
    attempts = {a.id: a for a in files.read_jsonl(ATTEMPTS, Attempt)}
    mended = [a for a in attempts.values() if a.verdict == "accepted" and a.refines]
    # The refinement that CLIP liked most more than what it refines, of the smallest class that has one.
    counts = {c.label: c.train for c in files.read_csv(CLASSES, ClassRecord)}
    few = min(counts[a.label] for a in mended)

    def gain(attempt: Attempt) -> float:
        return (attempt.score or 0) - (attempts[attempt.refines or ""].score or 0)

    after = max((a for a in mended if counts[a.label] == few), key=gain)
    before = attempts[after.refines or ""]
    label, name = after.label, after.class_name
    manifest = files.read_csv(MANIFEST, ImageRecord)
    photos = [image_file(root, r) for r in manifest if (r.label, r.split) == (label, "train")]
    existing = [e for e in files.read_jsonl(EXISTING, ExistingDescription) if e.label == label]
    extended = [e for e in files.read_jsonl(EXTENDED, ExtendedDescription) if e.label == label]
    templates = files.read_jsonl(TEMPLATES, ClassTemplate)
    template = next(t for t in templates if t.label == label)
    accepted = [a for a in attempts.values() if a.label == label and a.verdict == "accepted" and a.image]

    figure, axes = plt.subplots(figsize=(15.2, 4.6), dpi=110)
    figure.patch.set_facecolor("#f5f7fa")
    xs = [0.0, 2.2, 4.4, 6.6, 9.6]
    box(axes, xs[0], f"{counts[label]} photos, rare class", "prepare")
    axes.text(xs[0] + 0.1, 2.68, name, fontsize=9, style="italic", color=INK, va="top")
    for i, path in enumerate(photos[:4]):
        picture(axes, path, xs[0] + 0.12 + 0.86 * (i % 2), 1.45 - 1.1 * (i // 2) + 0.05, 0.8)

    box(axes, xs[1], "What they show", "describe")
    for i, description in enumerate(existing[:3]):
        words(axes, xs[1] + 0.1, 2.65 - 0.85 * i, f"• {tail_of(description.description or '', name)}")

    box(axes, xs[2], "What is missing", "extend")
    kept = [e for e in extended if e.kept]
    dropped = next((e for e in extended if e.reason == "repeats"), None)
    for i, line in enumerate(kept[:2]):
        words(axes, xs[2] + 0.1, 2.65 - 0.85 * i, f"• {tail_of(line.description, name)}")
    if dropped:
        words(axes, xs[2] + 0.1, 0.95, f"✗ {tail_of(dropped.description, name)} ({dropped.reason})", colour=BAD)

    box(axes, xs[3], "Drawn, judged, refined", "templates, generate", width=2.7)
    words(axes, xs[3] + 0.1, 2.68, f"CLIP asks for: {tail_of(template.template, name)}", 43, SOFT)
    picture(axes, Path(before.image or ""), xs[3] + 0.15, 1.15, 0.95, BAD)
    picture(axes, Path(after.image or ""), xs[3] + 1.6, 1.15, 0.95, GOOD)
    for attempt, x, colour, sign in ((before, 0.15, BAD, "<"), (after, 1.6, GOOD, "≥")):
        score = f"{attempt.score:.2f} {sign} {attempt.threshold:.2f}"
        axes.text(xs[3] + x, 1.05, score, fontsize=9, color=colour, va="top")
    words(axes, xs[3] + 0.1, 0.88, tail_of(before.prompt, name), 23, BAD)
    words(axes, xs[3] + 1.42, 0.88, tail_of(after.prompt, name), 23, GOOD)
    arrow(axes, (xs[3] + 1.12, 1.65), (xs[3] + 1.58, 1.65), INK)

    box(axes, xs[4], "CLIP + LoRA on mixed pairs", "train, evaluate, compare", width=2.5)
    mixing = "BalanceMix: a photo, every class as often, and a drawing are mixed, and so are their labels."
    words(axes, xs[4] + 0.1, 2.68, mixing, 38)
    photo, drawing = images.load(photos[0]), images.load(accepted[0].image or "")
    picture(axes, photos[0], xs[4] + 0.12, 1.2, 0.66)
    picture(axes, Path(accepted[0].image or ""), xs[4] + 0.92, 1.2, 0.66)
    axes.imshow(
        Image.blend(photo, drawing.resize(photo.size), 0.45),
        extent=(xs[4] + 1.72, xs[4] + 2.38, 1.2, 1.86), interpolation="nearest", zorder=3,
    )  # fmt: skip
    axes.text(xs[4] + 0.85, 1.53, "+", ha="center", va="center", fontsize=13)
    axes.text(xs[4] + 1.65, 1.53, "=", ha="center", va="center", fontsize=13)
    compare = files.read_json(COMPARE)
    rows = [
        ("few-shot accuracy", "%"),
        ("fine-tuned on the photos", "clip_finetune"),
        ("with generated content", "balancemix"),
    ]
    for i, (text, method) in enumerate(rows):
        value = method if method == "%" else f"{compare[method]['few']['mean']:.1f}"
        weight = "bold" if method == "balancemix" else "normal"
        axes.text(xs[4] + 0.12, 0.85 - 0.25 * i, text, fontsize=9, va="top", color=INK, weight=weight)
        axes.text(xs[4] + 2.35, 0.85 - 0.25 * i, value, fontsize=9, va="top", ha="right", color=INK, weight=weight)

    widths = [1.9, 1.9, 1.9, 2.7]
    for x, width, following in zip(xs, widths, xs[1:], strict=False):
        arrow(axes, (x + width + 0.03, 1.7), (following - 0.03, 1.7))
    axes.set(xlim=(-0.1, 12.25), ylim=(-0.05, 3.5), aspect="equal")
    axes.axis("off")
    figure.savefig(OUT, bbox_inches="tight", facecolor=figure.get_facecolor())
    print(f"{OUT}: {name}, {before.id} refined to {after.id}")


if __name__ == "__main__":
    main()
