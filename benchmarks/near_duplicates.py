"""How far the perceptual hashes of nearly the same image differ, for the default of data.near_duplicates.

    python benchmarks/near_duplicates.py PHOTOS     # a folder with train/ and test/ of JPEG files

Prints the nearest pairs of a training and a test photo, in bits of 64, and in how many bits every fourth test
photo differs from itself shrunk to two thirds and saved at JPEG quality 60, and with 2 % cut off at each side.
"""

import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

from imagehash import phash
from PIL import Image


def main(photos: Path) -> None:
    test = sorted(photos.glob("test/**/*.jpg"))
    train_hashes, test_hashes = (
        [phash(Image.open(path)) for path in paths] for paths in (photos.glob("train/**/*.jpg"), test)
    )
    print("nearest pairs:", sorted(int(a - b) for a in test_hashes for b in train_hashes)[:5])
    bits: Counter[tuple[str, int]] = Counter()
    for path in test[::4]:
        image, file = Image.open(path).convert("RGB"), BytesIO()
        w, h = image.size
        image.resize((w * 2 // 3, h * 2 // 3)).save(file, "JPEG", quality=60)
        bits["shrunk", int(phash(image) - phash(Image.open(file)))] += 1
        bits["cut", int(phash(image) - phash(image.crop((w // 50, h // 50, w - w // 50, h - h // 50))))] += 1
    for (change, differing), count in sorted(bits.items()):
        print(f"{change}: {count} differ by {differing} bits")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
