"""Reading images that people send: any mode, the formats below, or a clear reason why not."""

import base64
import io
import os
from pathlib import Path
from typing import NamedTuple

import xxhash
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ltgc.data import shards
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import MANIFEST
from ltgc.pipeline.errors import LTGCError

MAX_PIXELS = 100_000_000  # larger ones are refused before they are decoded: 300 MB as RGB
# Others of Pillow's are left out: some run programs (EPS: Ghostscript), some decode before their size is known.
FORMATS = ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]
FORMATS += ["AVIF"] if features.check("avif") else []
DECODED_AT_ONCE = min(8, os.cpu_count() or 1)  # by the stages that ask about images: 12 megapixels take 60 MB
MAX_SIDE = 1024  # pixels; vision models look at no more, and a 12-megapixel PNG is a request of 20 MB

# Pillow warns at its own, lower limit and raises at twice that; ours is checked first and says what to do.
Image.MAX_IMAGE_PIXELS = None


class BadImage(ValueError):
    """Not a usable image; the message is the reason, without the file's name."""


class ImageFile(NamedTuple):
    """Where an encoded image is, and which bytes it must have."""

    path: str  # of a file, or of a member of a shard: generated/accepted/0012-aquilegia.tar/0007-1.png
    hash: str | None = None  # content_hash of its bytes, as data/manifest.csv lists it; None: any bytes will do


Reference = ImageFile | str | Path


def content_hash(data: bytes) -> str:
    """What tells two files apart: 128 bits as hex. It takes microseconds, and decoding a photo milliseconds."""
    return xxhash.xxh3_128_hexdigest(data)


def decode(data: bytes, shortest: int | None = None) -> Image.Image:
    """The image in `data` as 8-bit RGB, upright (EXIF), first frame if animated, transparency on white.

    shortest: pixels; a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where its shortest side keeps as many, which
    takes a fraction of the time.
    Raises BadImage: "empty", "not an image", "truncated or corrupt", "W x H pixels: over the limit".
    """
    if not data:
        raise BadImage("empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadImage("not an image") from error
    except Exception as error:  # decoders of broken files raise almost anything
        raise BadImage(f"truncated or corrupt ({type(error).__name__})") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels: over the limit of {MAX_PIXELS:,}")
    try:
        image.seek(0)
        if shortest:
            image.draft(None, (shortest, shortest))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # a copy of 12 megapixels is 48 MB
        return _rgb(image)
    except Exception as error:
        raise BadImage(f"truncated or corrupt ({type(error).__name__})") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # 16-bit grey: keep the range, not the low byte
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image if image.mode == "RGB" else image.convert("RGB")


def read(image: Reference) -> bytes:
    """The bytes of an image.

    Raises OSError (FileNotFoundError), and LTGCError where its shard is no whole tar or where it is not the image
    that the manifest lists: DVC does not see every photo (data.images), and a stage can be run without DVC.
    """
    path, expected = image if isinstance(image, ImageFile) else (str(image), None)
    folder, tar, member = path.rpartition(".tar/")
    if tar and Path(f"{folder}.tar").is_file():
        data = shards.read(Path(f"{folder}.tar"), member)
    else:
        if Path(path).is_fifo():
            raise BadImage("not a file")  # reading it would wait for ever
        data = Path(path).read_bytes()
    if expected is not None and content_hash(data) != expected:
        raise LTGCError(
            f"{path}: not the image that {MANIFEST} lists; put that one back, or take this one by "
            "`dvc repro --force --single-item prepare`, then `dvc repro`"
        )
    return data


def load(image: Reference, shortest: int | None = None) -> Image.Image:
    """`decode` of what `read` reads. Raises BadImage, and as `read` does."""
    return decode(read(image), shortest)


def required(image: Reference, shortest: int | None = None) -> Image.Image:
    """`load` of an image that `prepare` or `generate` found good. Raises LTGCError naming it, and what to do."""
    try:
        return decode(_present(image), shortest)
    except BadImage as error:
        raise files.bad_file(_path(image), error) from error


def data_url(image: bytes | Reference) -> str:
    """The pixels of an encoded image, or of a file, at most MAX_SIDE wide and high, as a PNG data URL.

    The file's metadata is not in it.

    Raises BadImage; LTGCError for an image that is missing, or not the one that the manifest lists.
    """
    thumbnail = decode(image if isinstance(image, bytes) else _present(image))
    thumbnail.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels = thumbnail.copy()
    pixels.info.clear()
    file = io.BytesIO()
    pixels.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _present(image: Reference) -> bytes:
    try:
        return read(image)
    except FileNotFoundError as error:
        raise LTGCError(
            f"{_path(image)}: not there; run `dvc pull` or `dvc repro`, or correct data.root in params.yaml"
        ) from error


def _path(image: Reference) -> str:
    return image.path if isinstance(image, ImageFile) else str(image)
