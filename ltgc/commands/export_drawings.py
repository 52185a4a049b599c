"""The accepted drawings as a data set of their own: WebDataset shards and a dataset card, ready for `hf upload`.

ltgc export-drawings exported/drawings
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ltgc.commands import cards
from ltgc.data import shards
from ltgc.data.synthetic import marked
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.drawings import ACCEPTED, ATTEMPTS, DROPPED, Attempt, Contamination
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console

# Of an Attempt: what has the same type in every sample, as readers that infer a schema need it.
FIELDS = {"class_name", "label", "prompt", "seed", "round", "score", "threshold"}


def main(folder: Path) -> None:
    """Write the accepted drawings to a new `folder`, without those that train leaves out (quality).

    Raises LTGCError if the folder is not empty or nothing was accepted.
    """
    settings = params.load("servers", "t2i", "licenses")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LTGCError(f"{folder}: exists already; name a new folder")
    tars = sorted(ACCEPTED.glob("*.tar"))
    if not tars:
        raise LTGCError(f"{ACCEPTED}: no drawing was accepted; run `dvc repro generate`")
    dropped = {found.image for found in files.read_csv(DROPPED, Contamination)} if DROPPED.exists() else set()
    images: Counter[str] = Counter()
    with files.replaced_folder(folder) as new:
        for tar in tars:
            shards.write(new / "train" / tar.name, _members(tar, dropped, images))
        model, photos = settings.t2i.billed_as, cards.photo_licenses()
        card = cards.dataset_card(images, model, settings.licenses, photos, refused())
        files.write_text(new / "README.md", card)
    console.print(f"{folder}: {sum(images.values()):,} images of {len(images):,} classes")


def refused() -> Counter[str]:
    """Class name -> drawings that the image model refused to make."""
    return Counter(a.class_name for a in files.read_jsonl(ATTEMPTS, Attempt) if a.reason == "refused")


def _members(tar: Path, dropped: set[str], images: Counter[str]) -> Iterator[tuple[str, bytes]]:
    for attempt, name in shards.attempts(tar):
        if attempt.image in dropped:
            continue
        images[attempt.class_name] += 1
        key = f"{tar.stem}-{Path(name).stem}"
        yield f"{key}.png", marked(shards.read(tar, name))
        about = attempt.model_dump(include=FIELDS)
        yield f"{key}.json", json.dumps(about, ensure_ascii=False).encode()
