"""A small world whose models are a scripted server: the loops can run in it within a second or two."""

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from helpers import training_world
from helpers.openai_server import Script, said
from helpers.paths import ROOT, link_prompts
from helpers.photo_folders import few_photos
from helpers.server_settings import png
from stages import describe, extend, generate, templates

STAGES = (describe, extend, templates, generate)
MADE = ("descriptions", "generated", "store", "metrics")


def answer(request: dict[str, Any]) -> str:
    """Two descriptions a question and one line that is none; every class has petals."""
    question = said(request)
    found = re.search(r'the class "(\w+)"', question)
    head = f"A photo of the class {found[1] if found else ''}"
    if "Template 2" in question:
        return f"{head} with {{petals}}."
    if "describe this image" in question:
        return f"{head}, {{red petals}}{{in a garden}}."
    if "Please refine" in question:
        return f"{head}, better petals in rain."
    known = question.count("A photo of the class") - 1
    return f"{head}, {known} petals in snow.\n{head}, {known + 1} petals in rain.\nWhat a flower."


def paint(request: dict[str, Any]) -> bytes:
    return png("#" + hashlib.sha256(f"{request['prompt']}{request['seed']}".encode()).hexdigest()[:6])


def build(folder: Path, script: Script, counts: dict[str, int], target: int) -> None:
    """Write what prepare would, of classes with so many photos, and params.yaml; the script answers."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name in ("llm", "vision", "t2i"):
        values[name] |= {"base_url": script.base_url, "retries": 0}
    values["data"] |= {"source": "folder", "root": str(folder / "photos")}
    values["extend"] |= {"target": target, "repetition_check": False}
    values["clip"] = {"model": training_world.save_clip(folder / "clip"), "pretrained": None}
    values["filter"] |= {"scorer": "cosine", "threshold": -1.0, "offset": 0.0, "max_refinements": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    link_prompts(folder)
    few_photos(folder, counts, lambda label, number: png(f"#{label}{number}0000"))
    script.chat, script.image = answer, paint


def contents(*names: str) -> dict[str, bytes]:
    """The files below these folders of the working directory."""
    return {str(p): p.read_bytes() for name in names for p in sorted(Path(name).rglob("*")) if p.is_file()}
