"""What the rehearsal runs on: the shapes of the data sets, small photos, and servers that answer at once."""

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import instant_server
import numpy as np
import yaml
from instant_server import completion
from PIL import Image

ROOT = Path(__file__).parents[1]
SIDE = 8  # pixels
WRONG = 0.2  # share of drawings that do not look like their class
BATCH = 32  # of training


@dataclass(frozen=True)
class Shape:
    photos: int
    groups: tuple[int, int, int]  # classes: many, medium, few
    largest: int
    smallest: int
    target: int  # K
    val: int  # images of each class
    test: int

    @property
    def classes(self) -> int:
        return sum(self.groups)

    def counts(self, classes: int) -> list[int]:
        """Training images of `classes` classes, spread evenly over those of the data set."""
        many, medium, few = self.groups
        tail = [*_falling(100, 20, medium), *_falling(19, self.smallest, few)]
        low, high = 0.1, 20.0
        for _ in range(60):  # how fast the head falls is what gives the data set its number of photos
            power = (low + high) / 2
            head = _falling(self.largest, 101, many, power)
            low, high = (power, high) if sum(head) + sum(tail) > self.photos else (low, power)
        every = [*head, *tail]
        return [every[int((i + 0.5) * len(every) / classes)] for i in range(classes)]


def _falling(first: int, last: int, count: int, power: float = 1.0) -> list[int]:
    place = np.linspace(1, 0, count) ** power
    return [round(last * (first / last) ** p) for p in place]


SHAPES = {
    "imagenet_lt": Shape(115_846, (385, 479, 136), 1280, 5, target=300, val=20, test=50),
    "inat2018": Shape(437_513, (842, 4076, 3224), 1000, 2, target=100, val=0, test=3),
}


def colour(name: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(name.encode()).digest()[:3], np.uint8).astype(int)


def pixels(name: str, key: str) -> np.ndarray:
    """(SIDE, SIDE, 3) in the colour of the class, with noise of its own."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).integers(-40, 40, (SIDE, SIDE, 3))
    return (colour(name) + noise).clip(0, 255).astype(np.uint8)


def png(name: str, key: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(name, key)).save(file, "PNG")
    return file.getvalue()


def ppm(name: str, key: str) -> bytes:
    return b"P6 %d %d 255\n" % (SIDE, SIDE) + pixels(name, key).tobytes()


def take_photos(root: Path, counts: Sequence[int], val: int, test: int) -> None:
    for label, count in enumerate(counts):
        name = f"class {label:04d}"
        for split, number in (("train", count), ("val", val), ("test", test)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(number):
                (folder / f"{k:04d}.ppm").write_bytes(ppm(name, f"{split} {name} {k}"))


def write_params(project: Path, photos: Path, clip: str, base_url: str, target: int, steps: int) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"source": "folder", "root": str(photos)}
    values["servers"] |= {"base_url": base_url, "api_key_env": "KEY", "concurrency": 64}
    values["budget"] |= {"project": "rehearsal"}
    values["extend"] |= {"target": target, "max_rounds": 30}
    values["clip"] |= {"model": clip, "pretrained": None, "revision": None}
    values["train"] |= {"steps": steps, "batch_size": BATCH, "device": "cpu"}
    values["methods"], values["seeds"] = ["balanced_photos", "balancemix", "ltgc_plus"], [0]
    values["ask"] |= {"max_images": 200}
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


# --- the servers ---


async def respond(request: dict[str, Any]) -> dict[str, Any]:
    return drawing(request) if "prompt" in request else chat(request)


def drawing(request: dict[str, Any]) -> dict[str, Any]:
    key = f"{request['prompt']} {request.get('seed')}"
    wrong = hashlib.sha256(key.encode()).digest()[0] < 256 * WRONG
    found = re.search(r"of the class ([^,]*),", request["prompt"])
    name = "no class" if wrong or not found else found[1]
    return {"created": 0, "data": [{"b64_json": base64.b64encode(png(name, key)).decode()}]}


def chat(request: dict[str, Any]) -> dict[str, Any]:
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")
    seen = "" if isinstance(content, str) else next(p["image_url"]["url"] for p in content if p["type"] != "text")
    return completion(text, answer(text, hashlib.sha256(seen.encode()).hexdigest()))


def answer(text: str, seen: str) -> str:
    name = text.partition('"')[2].partition('"')[0]
    if text.startswith("These are the names"):
        return f"class {int(seen[:4], 16) % text.count('class '):04d}"
    if "Template 2" in text:
        return f"A photo of the class {name} with {{{feature(name + 'a')}}}{{{feature(name + 'b')}}}"
    if "exclude the repetitive" in text:
        return (
            text.partition(":\n")[2].rpartition("Here is a list of")[2].partition(":\n")[2].partition("\n\n")[0]
            or (text.partition(":\n")[2].partition("\n\n")[0])
        )
    if "describe this image" in text:
        return description(name, seen)
    if "does not represent" in text:
        return description(name, text)
    known = len(re.findall(r"^\d+\. ", text, re.MULTILINE))
    return "\n".join(f"{i}. {description(name, f'{name} {known + i}')}" for i in range(1, 21))


def description(name: str, key: str) -> str:
    return f"A photo of the class {name}, {{{feature(key)}, {feature(key + 'x')}}}{{in {feature(key + 'y')}}}."


def feature(key: str) -> str:
    a, b, c = hashlib.sha256(key.encode()).digest()[:3]
    return f"{WORDS[a % 16]} {WORDS[16 + b % 16]} {WORDS[32 + c % 16]}"


TEXT = """
    long short broad narrow dark pale bright dull smooth rough hairy bare curved straight tall low
    red blue green yellow white black brown grey pink violet orange golden silver spotted striped plain
    petals leaves stems legs wings horns eyes tails feathers scales wheels doors handles roofs walls stones
"""
WORDS = TEXT.split()


if __name__ == "__main__":
    asyncio.run(instant_server.serve(respond))
