"""The page: one self-contained HTML file that fetches nothing.

Class names and model replies are untrusted: Jinja escapes every one of them, and the page's own
Content-Security-Policy allows no request and no script but the page's own, by its hash. Everything can be read
without that script; it sorts, filters and unfolds.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ltgc.evaluation.comparison import METRICS, control
from ltgc.pipeline.artifacts.drawings import Contamination
from ltgc.report import answers, figures, fold_outs, sections, selection, thumbnails
from ltgc.report.inputs import Inputs
from ltgc.report.style import method_name
from ltgc.report.thumbnails import Thumbnails

TEMPLATES = Path(__file__).parent / "templates"
CONTAMINATED_SHOWN = 60


def page(inputs: Inputs) -> str:
    """The HTML of the report. Raises LTGCError naming an image that is not there or cannot be read."""
    accuracy = sections.mean_accuracy(inputs.results.accuracies)
    against = control(inputs.comparison)
    pair = answers.pair(inputs.comparison, against)
    thumbs = Thumbnails()
    entries = fold_outs.fold_outs(inputs, thumbs, thumbnails.BUDGET)
    thumbs.allow(thumbnails.GALLERY)
    gallery = fold_outs.gallery(inputs, thumbs)
    thumbs.allow(thumbnails.BUDGET // 20)
    script, style = (asset(name) for name in ("report.js", "report.css"))
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            inputs=inputs,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=style,
            metrics=METRICS,
            rows=sections.comparison_rows(inputs.comparison, against),
            control=against,
            pair=pair,
            answers=answers.answers(pair, inputs.paired, inputs.classes, accuracy),
            looked_for=sections.looked_for(yaml.safe_load(inputs.params)["data"]),
            gallery=gallery,
            fold_out_classes=len(selection.filled(inputs)),
            shots=sections.shot_rows(inputs.classes),
            findings=sections.findings(inputs.findings),
            counts_figure=figures.counts(inputs.classes),
            accuracy_figure=figures.accuracy(inputs.classes, accuracy, pair) if accuracy else None,
            scores_figure=figures.scores(inputs.scores),
            accuracy=accuracy,
            gains={c.label: sections.gain(accuracy, c.label, pair) for c in inputs.classes},
            drawn=Counter(a.label for a in inputs.attempts if selection.is_accepted(a)),
            steps=sections.flow(inputs.loops),
            rounds=sections.rounds(inputs.attempts),
            confusions=sections.confusions(inputs.classes, inputs.predictions, pair),
            fold_outs=entries,
            shown={entry["c"].label for entry in entries},
            descriptions_shown=fold_outs.DESCRIPTIONS,
            contaminated=_pairs(inputs, thumbs),
            thumbnails=thumbs,
        )
    )


def environment(*folders: Path) -> Environment:
    """What renders pages: the templates of this package, and those in `folders`."""
    made = Environment(
        loader=FileSystemLoader([TEMPLATES, *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": "{:,}".format,
        "words": lambda reason: reason.replace("_", " "),
        "method": method_name,
    }
    return made


def fig6(inputs: Inputs) -> bytes:
    """Original and generated images of tail classes, as PNG."""
    spaced, count, photos = selection.spaced, figures.FIG6_IMAGES, inputs.photos
    drawn = ((c, selection.accepted(inputs.attempts.of(c.label))) for c in selection.rarest(inputs.classes))
    tail = islice(((c, own) for c, own in drawn if own), figures.FIG6_ROWS)
    return figures.fig6([(c, spaced(photos.get(c.label, []), count), spaced(own, count)) for c, own in tail])


def fig7(inputs: Inputs) -> bytes:
    """Drawings before and after refinement, as PNG."""
    return figures.fig7(selection.mended(inputs.attempts, inputs.classes, figures.FIG7_COLUMNS))


def _pairs(inputs: Inputs, thumbs: Thumbnails) -> Sequence[tuple[Contamination, str | None, str | None]]:
    shown = inputs.contaminated[:CONTAMINATED_SHOWN]
    return [(found, thumbs.uri(found.image), thumbs.uri(inputs.test_photos[found.test])) for found in shown]


def asset(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
