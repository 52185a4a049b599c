"""The style of the embedded text-to-image model: what its drawings have and photos lack."""

import base64
import io

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from embedded import truth
from embedded.endpoint import app

PROMPT = "A photo of the class Aquilegia alpina, with five rounded blue petals and broad leaves in fresh snow."


def answer(**more):
    request = {"model": "paint-box", "prompt": PROMPT, "seed": 3, "size": "64x64"}
    return TestClient(app).post("/v1/images/generations", json=request | more)


def drawing(**more) -> bytes:
    return base64.b64decode(answer(**more).json()["data"][0]["b64_json"])


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)), dtype=float)


def test_without_a_style_a_drawing_is_what_it_was_before_there_were_styles():
    plain = drawing()
    assert plain == drawing(style=None)
    # Of the drawing that commit 2039894 made of this request.
    assert pixels(plain).sum() == 2188500


def test_a_style_lies_over_what_is_drawn_without_it():
    plain, styled = drawing(), drawing(style="vintage")
    assert truth.flower(styled) == truth.flower(plain)
    red, _, blue = (pixels(styled) - pixels(plain)).mean(axis=(0, 1))
    assert red > 10
    assert blue < -10
    assert pixels(styled).std(axis=(0, 1)).min() > 0


def test_a_style_that_it_does_not_know_is_refused_with_those_that_it_knows():
    refused = answer(style="vivid")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "style"
    assert "vintage" in refused.json()["error"]["message"]
