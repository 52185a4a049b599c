"""The picture of the README: how the report of the last `dvc repro` opens, and one class of it.

    python -m tools.picture         # writes docs/report.png; needs Chromium ($CHROMIUM, or in PATH)

It is the report's own HTML with most of it left out: the answers, and of a rare class its photos, its drawings,
and drawings that CLIP turned down with what became of them.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from ltgc.pipeline.artifacts.results import REPORT
from ltgc.pipeline.errors import LTGCError

OUT = Path("docs/report.png")
WIDTH, HEIGHT = 1160, 2000  # CSS pixels; what stays empty below is cut off
DRAWINGS, ACCEPTED, REJECTED = 12, 2, 1
CLASS = re.compile(r'<details class="class".*?(?=<details class="class"|</section>)', re.S)
CHAIN = re.compile(r'<ol class="chain".*?</ol>', re.S)
MARGIN = 16
STYLE = """
body { padding: .6rem 0 0; } h4 { margin: .7rem 0 .2rem; } .chain { overflow: hidden; }
details.class { border: 0; }
.side-by-side { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
"""


def main() -> None:
    html = REPORT.read_text(encoding="utf-8")
    head, _, rest = html.partition("<nav")
    of_class, given_up, mended = chosen(CLASS.findall(rest))
    shown = f"{''.join(given_up[:REJECTED])}<div class='side-by-side'>{''.join(mended[:ACCEPTED])}</div>"
    opening, _, below = of_class.partition("<details><summary>Refinements")
    count = below.partition("<")[0]  # ": 19"
    title = f"<h4>Refinements{count}: turned down, and what became of it</h4>"
    body = f"</header><main>{fewer_drawings(opening)}{title}{shown}</details></main></body></html>"
    page = first_answers(head) + body
    page = re.sub(r"<details class", "<details open class", page).replace("</style>", f"{STYLE}</style>")
    shoot(page)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


def chosen(classes: list[str]) -> tuple[str, list[str], list[str]]:
    """The rarest class with both, its chains that were given up, and those that a refinement mended."""
    for of_class in classes:
        chains = [chain for chain in CHAIN.findall(of_class) if chain.count("<li>") > 1]
        mended = [chain for chain in chains if 'class="score accepted"' in chain]
        given_up = [chain for chain in chains if chain not in mended]
        if mended and given_up:
            return of_class, sorted(given_up, key=len), sorted(mended, key=len)
    raise LTGCError(f"{REPORT}: no class with a refinement that helped and one that did not")


def first_answers(head: str) -> str:
    """The head of the page to the end of its questions: did it help, where, what did it cost."""
    before, start, answers = head.partition('<div class="verdict">')
    asked = [answer for answer in re.findall(r"<p>.*?</p>", answers, re.S) if "?</b>" in answer]
    return before + start + "".join(asked) + "</div>"


def fewer_drawings(of_class: str) -> str:
    """One row of drawings."""
    before, title, after = of_class.partition("<h4>Generated")
    drawings = re.findall(r"<li title=.*?</li>", after, re.S)
    return f'{before}{title}, with CLIP\'s score</h4><ul class="images">{"".join(drawings[:DRAWINGS])}</ul>'


def shoot(page: str) -> None:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if browser is None:
        raise LTGCError("chromium: not found; install it, or name it in $CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(page, encoding="utf-8")
        picture = Path(folder) / "page.png"
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--single-process", "--no-zygote"),
                *("--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}", "--force-device-scale-factor=1.5"),
                *(f"--user-data-dir={folder}/profile", f"--screenshot={picture}"),
                (Path(folder) / "page.html").as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        image = Image.open(picture).convert("RGB")
        empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
        box = ImageChops.difference(image, empty).getbbox() or (0, 0, *image.size)
        image.crop((0, 0, image.width, min(image.height, box[3] + MARGIN))).quantize(128).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
