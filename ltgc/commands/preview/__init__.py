"""A few tail classes with the real models, on one page, before anything is paid for a thousand.

    ltgc preview               # preview/index.html: photos, descriptions, template, drawings with scores, cost
    ltgc preview --classes 5

The pipeline's own stages run in the folder preview/, so the real run finds in the pool what was asked here.
Neither dvc.lock nor store/ nor an artifact of the pipeline changes.
"""

import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import yaml

from graphs.parse.template_2 import class_template
from ltgc.clients.store import Store
from ltgc.commands import estimate
from ltgc.commands.preview import page
from ltgc.pipeline import files, params, side_folder
from ltgc.pipeline.artifacts.dataset import CLASSES, MANIFEST, ClassRecord
from ltgc.pipeline.artifacts.descriptions import TEMPLATES, ClassTemplate
from ltgc.pipeline.artifacts.replies import STORE
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.terminal import console

FOLDER = Path("preview")
PAGE = FOLDER / "index.html"
STAGES = ("describe", "extend", "templates", "generate")


def main(count: int, open_browser: bool) -> None:
    """Run the loops for `count` tail classes and write the page.

    Raises LTGCError where no class is to be filled up, and where `preview` is a folder of somebody else's.
    """
    settings = params.load(
        "servers", "llm", "vision", "t2i", "extend", "templates", "ask", "filter", "prices", "data"
    )
    classes = estimate.prepared_classes()
    chosen = choose(classes, settings.extend.target, count)
    expected = estimate.estimate(settings, chosen)
    del expected["ask"]
    total = sum(expected.values(), estimate.Cost())
    usd = "a model has no price" if total.usd is None else f"about {total.usd:,.2f} USD"
    console.print(f"preview of {', '.join(c.name for c in chosen)}: {usd}", markup=False)
    take_in_replies(settings)
    build(chosen)
    for stage in STAGES[:3]:
        run(stage)
    stand_in(classes, chosen)
    run("generate")
    with chdir(FOLDER):
        html, said = page.page(settings, classes, chosen)
    files.write_text(PAGE, html)
    console.print(f"{said}\n{PAGE}", markup=False)
    if open_browser:
        webbrowser.open(PAGE.resolve().as_uri())


def choose(classes: Sequence[ClassRecord], target: int, count: int) -> list[ClassRecord]:
    """`count` of the tail classes, evenly spaced from the one with the fewest photos, by label."""
    tail = sorted((c for c in classes if c.train < target), key=lambda c: (c.train, c.label))
    if not tail:
        raise LTGCError(
            f"extend.target: no class has fewer than {target} photos, so nothing is described or drawn"
        )
    count = min(count, len(tail))
    return sorted((tail[i * len(tail) // count] for i in range(count)), key=lambda c: c.label)


def take_in_replies(settings: Params) -> None:
    """What was paid for may have been pulled, and be in no pool of this machine yet."""
    for stage in STAGES:
        with Store(STORE / stage, [settings.llm, settings.vision, settings.t2i], share=False):
            pass


def build(chosen: Sequence[ClassRecord]) -> None:
    """Make the folder anew, with the chosen classes alone."""
    if FOLDER.exists() and not (FOLDER / params.PARAMS).exists():
        raise LTGCError(f"{FOLDER}: a folder that `ltgc preview` did not make; rename it")
    shutil.rmtree(FOLDER, ignore_errors=True)
    values = yaml.safe_load(params.PARAMS.read_text(encoding="utf-8"))
    side_folder.build(FOLDER, values, side_folder.MADE | {"data"})
    (FOLDER / MANIFEST).parent.mkdir()
    for entry in MANIFEST.parent.iterdir():
        if entry != CLASSES:
            (FOLDER / entry).symlink_to(entry.resolve())
    files.write_records_csv(FOLDER / CLASSES, chosen, ClassRecord)


def stand_in(classes: Sequence[ClassRecord], chosen: Sequence[ClassRecord]) -> None:
    """List all classes again, for the scorer; those that were not asked about have their names for templates."""
    written = {t.label: t for t in files.read_jsonl(FOLDER / TEMPLATES, ClassTemplate)}
    all_of_them = [written.get(c.label) or class_template(c, [], "asked_not_to") for c in classes]
    files.write_jsonl(FOLDER / TEMPLATES, all_of_them)
    files.write_records_csv(FOLDER / CLASSES, classes, ClassRecord)


def run(stage: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=FOLDER)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
