"""Small copies of images as data URIs, within a budget that keeps the page below 15 MB."""

import base64
import io
from dataclasses import dataclass, field

from ltgc.data import images

SIDE = 128  # pixels, longer side
BUDGET = 6_000_000  # bytes of data URIs in the fold-outs; thousands of texts and an SVG a figure take the rest
GALLERY = 2_500_000  # bytes of those in the gallery


@dataclass
class Thumbnails:
    """WebP thumbnails, each made once. What is allowed and not used is left for whoever asks later."""

    allowed: int = 0  # bytes that may still be used
    left_out: int = 0  # images that were not shown
    made: dict[str, str] = field(default_factory=dict)

    def allow(self, size: int) -> None:
        """Give `size` bytes more: a share a class, or the first classes would use up everything."""
        self.allowed += size

    def uri(self, reference: images.Reference) -> str | None:
        """The data URI of an image (a file or a shard's member), or None, and counted, where nothing is left.

        Raises LTGCError naming an image that is not there or cannot be read.
        """
        key = str(reference.path if isinstance(reference, images.ImageFile) else reference)
        if key in self.made:
            return self.made[key]
        if self.allowed <= 0:
            self.left_out += 1
            return None
        image = images.required(reference, SIDE)
        image.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        image.save(out, "WEBP", quality=80)
        uri = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
        self.allowed -= len(uri)
        self.made[key] = uri
        return uri
