"""The page of `ltgc review`, and the verdicts that it sends back.

Other web pages in the same browser cannot decide anything: a verdict is JSON, which a browser sends to another
origin only if that allows it, and the Host header must be this machine's (DNS rebinding).
"""

import base64
import hashlib
import threading
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from pydantic import BaseModel, ValidationError

from graphs import review
from graphs.parse.reply import Unusable
from ltgc.commands.review import doubts
from ltgc.data import images
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.review import REVIEW, ReviewRow
from ltgc.pipeline.errors import LTGCError
from ltgc.report import page

HERE = Path(__file__).parent


class Verdict(BaseModel):
    """What the page sends. verdict: "undo", or one of ReviewRow's."""

    item: str
    class_name: str
    which: str | None = None
    verdict: str
    text: str | None = None


def make_app(made: doubts.Made) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    template = page.environment(HERE).get_template("review.html.j2")
    script = Markup((HERE / "review.js").read_text(encoding="utf-8"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown: list[images.Reference] = []  # by the number in their address: no path comes from the browser
    numbers: dict[str, int] = {}
    one_at_a_time = threading.Lock()

    def address(image: images.Reference) -> str:
        if str(image) not in numbers:
            numbers[str(image)] = len(shown)
            shown.append(image)
        return f"/image/{numbers[str(image)]}"

    @app.get("/")
    def index(class_name: str = "") -> HTMLResponse:
        rows = _rows()
        found = {class_name: doubts.of_class(made, class_name)} if class_name else doubts.groups(made, rows)
        html = template.render(
            groups=found,
            class_name=class_name,
            classes=sorted({t.class_name for t in made.templates}),
            rows=rows,
            decided={row.key: row for row in rows},
            address=address,
            style=page.asset("report.css"),
            script=script,
            script_hash=script_hash,
        )
        return HTMLResponse(html)

    @app.get("/image/{number}")
    def image(number: int) -> Response:
        if not 0 <= number < len(shown):
            raise HTTPException(404)
        data = images.read(shown[number])
        return Response(data, media_type="image/*", headers={"X-Content-Type-Options": "nosniff"})

    @app.post("/verdict")
    def decide(verdict: Verdict) -> dict[str, int]:
        with one_at_a_time:
            return {"decided": _write(verdict)}

    return app


def _rows() -> list[ReviewRow]:
    """Read each time: the file may have been edited, or pulled, while the page is open."""
    return files.read_csv(REVIEW, ReviewRow) if REVIEW.exists() else []


def _write(verdict: Verdict) -> int:
    """Add the verdict to review.csv, or take one away; how many there are then. Raises HTTPException."""
    try:
        rows = {row.key: row for row in _rows()}
        if verdict.verdict == "undo":
            undone = verdict.item, verdict.class_name, verdict.which
            rows = {key: row for key, row in rows.items() if key != undone}
        else:
            row = ReviewRow.model_validate(verdict.model_dump())
            review.check(row)
            rows[row.key] = row
    except Unusable as unusable:
        raise HTTPException(422, review.remedy(row, unusable)) from unusable
    except ValidationError as error:
        raise HTTPException(422, error.errors()[0]["msg"]) from error
    except LTGCError as error:
        raise HTTPException(409, str(error)) from error
    in_order = sorted(rows.values(), key=lambda row: (row.item, row.class_name, row.which or ""))
    files.write_records_csv(REVIEW, in_order, ReviewRow)
    return len(in_order)
