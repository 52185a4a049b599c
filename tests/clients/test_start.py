"""Drawings that start from a photo: what servers are sent, how they are kept, and the photos' turns."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.openai_server import Script, openai_server
from helpers.paid_calls import draw
from helpers.server_settings import png, t2i_section
from PIL import Image

from embedded import paint_box, truth
from embedded.wildflowers import Flower
from ltgc.clients.start import Start, start_of
from ltgc.data.images import ImageFile, content_hash
from ltgc.pipeline.errors import LTGCError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", "k")
    with openai_server() as script:
        script.image = lambda request: png()
        yield script


def test_a_server_gets_the_photo_at_the_size_of_the_drawing_and_each_strength_is_paid_for_once(
    script: Script, tmp_path: Path
) -> None:
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    wide.save(tmp_path / "photo.png")
    photo = ImageFile(str(tmp_path / "photo.png"), content_hash((tmp_path / "photo.png").read_bytes()))
    weak, strong = (Start("photo.png", photo, strength) for strength in (0.25, 0.75))
    section = t2i_section(script, style="vivid")
    drawings = draw(section, tmp_path / "a", ("a rose", 3, weak), ("a rose", 3, strong), ("a rose", 3))
    assert all(drawing.image for drawing in drawings)
    edits = sorted((r for r in script.requests if "image" in r), key=lambda request: request["strength"])
    assert len(edits) == 2 and script.calls == 3
    assert [(e["strength"], e["seed"], e["prompt"], e["style"]) for e in edits] == [
        ("0.25", "3", "a rose", "vivid"), ("0.75", "3", "a rose", "vivid")
    ]  # fmt: skip
    sent = np.asarray(Image.open(io.BytesIO(edits[0]["image"])))
    assert sent.shape == (64, 64, 3) and (sent[:, 8:-8] == [0, 0, 255]).all()
    draw(section, tmp_path / "a", ("a rose", 3, weak), ("a rose", 3))
    assert script.calls == 3
    (tmp_path / "photo.png").write_bytes(png())
    with pytest.raises(LTGCError, match=r"photo\.png: not the image that .* lists"):
        draw(section, tmp_path / "a", ("another rose", 3, weak))


def test_photos_take_turns_and_each_comes_at_every_strength() -> None:
    photos = [(name, ImageFile(name)) for name in ("a", "b", "c", "d")]
    starts = [start_of(index, photos, [0.3, 0.6]) for index in range(8)]
    assert [start.path for start in starts] == ["a", "b", "c", "d"] * 2
    assert {(start.path, start.strength) for start in starts} == {(p, s) for p, _ in photos for s in (0.3, 0.6)}


def test_the_embedded_painter_keeps_more_of_the_photo_the_weaker_it_edits() -> None:
    seen = Flower("open", "five", "rounded", "blue", "yellow", "broad", "night")
    prompt = "A photo of the class x, red hanging bells, a black rim and feathery leaves on desert sand."
    photo = Image.new("RGB", (64, 64), (40, 40, 40))

    def kept(strength: float) -> float:
        """The share of what was seen that is still there in 30 edits."""
        same = []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            flower = truth.flower(paint_box.edit(prompt, photo, seen, strength, (64, 64), None, rng))
            same += [getattr(flower, axis) == value for axis, value in vars(seen).items()]
        return sum(same) / len(same)

    weak, middle, strong = map(kept, (0.1, 0.5, 1.0))
    assert weak > 0.8 > middle > 0.35 > strong
