"""The README.md of an exported folder: a model card or a dataset card as the Hugging Face hub reads them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import LICENSES, ClassRecord, PhotoLicense
from ltgc.pipeline.artifacts.runs import Run, RunMetrics
from ltgc.pipeline.settings.clip import ClipSettings
from ltgc.pipeline.settings.data import LicensesSettings

PAPER = "LTGC: Long-tail Recognition via Leveraging LLMs-driven Generated Content (CVPR 2024)"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
NAMES = {
    "all": "accuracy",
    "many": "many-shot accuracy",
    "medium": "medium-shot accuracy",
    "few": "few-shot accuracy",
}
NOT_STATED = "not stated (`licenses` in params.yaml)"


def model_card(
    run: Run,
    metrics: RunMetrics | None,
    clip: ClipSettings,
    classes: Sequence[ClassRecord],
    licenses: LicensesSettings,
    photos: Mapping[str, int],
    adapter: bool,
) -> str:
    """How the model came about, what it reaches, and how to load it in open_clip and, with an adapter, in peft.

    photos: licence -> photos of which the source states it.
    """
    figures = {} if metrics is None else {k: v for k in NAMES if (v := getattr(metrics, k)) is not None}
    results = [{"type": "accuracy", "name": NAMES[key], "value": value} for key, value in figures.items()]
    front: dict[str, Any] = {
        "license": licenses.models or "other",
        "library_name": "open_clip",
        "pipeline_tag": "image-classification",
        "tags": ["long-tail", "ltgc", "synthetic-data"],
    }
    if results:
        task = {"type": "image-classification", "name": "Image classification"}
        data = {"type": "imagefolder", "name": "the data set of this run", "split": "test"}
        front["model-index"] = [
            {"name": f"ltgc-{run.method}", "results": [{"task": task, "dataset": data, "metrics": results}]}
        ]
    rows = "".join(f"| {NAMES[key]} | {value:.2f} |\n" for key, value in figures.items())
    table = f"\n| on the test split | % |\n|---|--:|\n{rows}" if rows else ""
    peft = "\n`lora/` is the adapter alone in PEFT's format, for the CLIP named above.\n" if adapter else ""
    base = " ".join(map(_code, filter(None, (clip.model, clip.pretrained))))
    return f"""{_front(front)}
# {run.method}, seed {run.seed}

An image classifier for {len(classes):,} classes: {base}, trained with the method `{run.method}`
of LTGC on {run.original:,} photos and {run.generated:,} generated images of the same classes;
{run.trained_parameters:,} weights were trained. {PAPER}.
{table}
## Use

```python
import json, open_clip, torch.nn.functional as F
from safetensors.torch import load_file

model, preprocess = open_clip.create_model_from_pretrained("local-dir:.")  # this folder
head, names = load_file("head.safetensors"), json.load(open("classes.json"))["classes"]
features = model.eval().encode_image(preprocess(image)[None], normalize=True)
logits = head["logit_scale"].float() * features @ F.normalize(head["weight"], dim=-1).T
```
{peft}
## Licences

- Weights: {licenses.models or NOT_STATED}
- Photos that they were trained on: {_photos(licenses, photos)}
- Generated images: {licenses.drawings or NOT_STATED}
"""


def dataset_card(
    images: Mapping[str, int],
    t2i_model: str,
    licenses: LicensesSettings,
    photos: Mapping[str, int],
    refused: Mapping[str, int],
) -> str:
    """What the generated set holds and how it was made.

    images: class name -> images; refused: the same; photos: licence -> photos of which the source states it.
    """
    total = sum(images.values())
    front = {
        "license": licenses.drawings or "other",
        "task_categories": ["image-classification"],
        "size_categories": [next((size for limit, size in SIZES if total < limit), "n>1M")],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "long-tail", "webdataset", "ltgc"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train/*.tar"}]},
        ],
    }
    rows = "".join(
        f"| {_cell(name)} | {images.get(name, 0):,} | {refused.get(name, 0):,} |\n"
        for name in {**images, **refused}
    )
    return f"""{_front(front)}
# Generated images

**Every image is synthetic.** {total:,} images of {len(images):,} classes were drawn by {_code(t2i_model)}
from descriptions that a language model wrote, and accepted by a filter. Each file says so in its metadata (IPTC's
`DigitalSourceType: trainedAlgorithmicMedia`). {PAPER}.

Read it with `datasets.load_dataset` or any reader of WebDataset: `png` is the image as the model sent it, `json`
has `class_name`, `label`, `prompt`, `seed`, `round` of refinement, `score` and `threshold`.

Nobody has looked at all of them. They may show people, trademarks or mistakes.

| class | images | refused by the image model |
|---|--:|--:|
{rows}
## Licences

- Images: {licenses.drawings or NOT_STATED}
- Photos that the descriptions began with: {_photos(licenses, photos)}
"""


def photo_licenses() -> Counter[str]:
    """Licence -> photos of which the source states it (data/licenses.csv)."""
    photos = files.read_csv(LICENSES, PhotoLicense) if LICENSES.exists() else []
    return Counter(photo.license for photo in photos)


def _photos(licenses: LicensesSettings, stated: Mapping[str, int]) -> str:
    """What params.yaml says of all photos, and what the source says of each."""
    each = ", ".join(f"{_cell(license)} ({count:,} photos)" for license, count in sorted(stated.items()))
    return "; ".join(filter(None, (licenses.photos, each))) or NOT_STATED


def _front(values: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}---"


def _code(text: str) -> str:
    """Text of somebody else's as inline code, on one line."""
    words = " ".join(text.replace("`", "'").split())
    return f"`{words}`" if words else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
