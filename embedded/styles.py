"""Styles that a text-to-image model's drawings have and photos lack: the domain gap (`t2i.style`).

They lie over a finished image, so that the same things are drawn with a style as without one.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image


class Style(NamedTuple):
    cast: tuple[float, float, float]  # added to red, green and blue, in grey levels
    contrast: float  # around middle grey
    grain: float  # standard deviation of a texture, in grey levels
    cells: int  # of that texture along each side: fewer are coarser


STYLES = {"vintage": Style(cast=(25.0, -7.0, -28.0), contrast=0.8, grain=21.0, cells=32)}


def restyle(image: Image.Image, style: Style, rng: Generator) -> Image.Image:
    """The RGB image in a style."""
    texture = Image.fromarray(rng.normal(0, style.grain, (style.cells, style.cells)).astype(np.float32))
    grain = np.asarray(texture.resize(image.size, Image.Resampling.NEAREST))[..., None]
    pixels = (np.asarray(image, dtype=np.float64) - 128) * style.contrast + 128 + np.array(style.cast) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
