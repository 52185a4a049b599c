"""A trained model as a folder of its own: weights that plain open_clip loads, adapter, head and class names.

    ltgc export balancemix 0 exported/balancemix

`ltgc predict` uses the folder, or open_clip alone: docs/report-and-export.md.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file

from ltgc.classifier import lora
from ltgc.classifier.network import HEAD, load_classifier
from ltgc.clip.encoder import Clip
from ltgc.clip.weights import Source, load_clip, locate_clip
from ltgc.commands import cards
from ltgc.commands.predict import CLASS_NAMES
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.artifacts.runs import MODELS, RUN_METRICS, Run, RunMetrics
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.clip import ClipSettings
from ltgc.pipeline.settings.data import LicensesSettings
from ltgc.pipeline.terminal import console

ADAPTER = "lora"
PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
# How a tuned encoder becomes one of open_clip's own architecture; adaptformer and prompts add to it.
MERGED: dict[str | None, Callable[[Any], Any]] = {
    None: lambda visual: visual,  # zero-shot and linear probe: CLIP's own encoder
    "full": lambda visual: visual,
    "lora": lora.merge,
}


def main(method: str, seed: int, folder: Path) -> None:
    section = params.load("clip", "licenses")
    export(MODELS / method / str(seed), section.clip, folder, section.licenses)
    console.print(f"{folder}: {method}, seed {seed}; try ltgc predict {folder} IMAGES OUT.csv")


def export(trained: Path, settings: ClipSettings, folder: Path, licenses: LicensesSettings) -> None:
    """Write what `trained` (models/<method>/<seed>) holds and a model card into the new `folder`, or nothing.

    Raises LTGCError if the run was skipped or does not exist, if the folder is not empty, and for a tuning that
    adds layers which open_clip's own architecture does not have.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LTGCError(f"{folder}: exists already; name a new folder")
    run = files.read_record(trained / "run.json", Run)
    if run.skipped:
        raise LTGCError(f"{trained}: nothing was trained: {run.skipped}")
    classes = files.read_csv(CLASSES, ClassRecord)
    source = locate_clip(settings)
    network = load_clip(settings, "cpu")
    classifier = load_classifier(trained, network)
    tuned = classifier.visual
    tuning: Any = getattr(tuned, "tuning", None)
    if tuning not in MERGED:
        raise LTGCError(
            f"{trained}: {tuning} adds layers that open_clip does not have; what can be exported is "
            f"{', '.join(name for name in MERGED if name)}, linear_probe and zero-shot (train.tuning)"
        )
    if classifier.branch is not None:
        raise LTGCError(
            f"{trained}: {run.method} decides by more than encoder and head ({classifier.branch.file}), which "
            "open_clip does not have; `load_classifier` loads it"
        )
    network.model.visual = MERGED[tuning](tuned)

    measured = RUN_METRICS / run.method / f"{run.seed}.json"
    metrics = files.read_record(measured, RunMetrics) if measured.exists() else None
    with files.replaced_folder(folder) as part:
        weights = {name: value.contiguous() for name, value in network.model.state_dict().items()}
        save_file(weights, part / "open_clip_model.safetensors", metadata={"format": "pt"})
        files.write_json(part / "open_clip_config.json", config(source, network))
        if isinstance(network.tokenize, HFTokenizer):  # open_clip has the other one built in
            network.tokenize.save_pretrained(str(part))
        shutil.copy(trained / HEAD, part)
        if tuning == "lora":
            shutil.copytree(trained / "adapter", part / ADAPTER)
        names = [c.name for c in classes]
        files.write_json(part / CLASS_NAMES, {"method": run.method, "seed": run.seed, "classes": names})
        card = cards.model_card(
            run, metrics, settings, classes, licenses, cards.photo_licenses(), adapter=tuning == "lora"
        )
        files.write_text(part / "README.md", card)
        for path in part.rglob("*"):  # safetensors and the run's own files are written as 0600
            path.chmod(0o755 if path.is_dir() else 0o644)


def config(source: Source, network: Clip) -> dict[str, Any]:
    """open_clip_config.json: the architecture and the preprocessing."""
    # A copy: open_clip hands out its own.
    model: dict[str, Any] = json.loads(json.dumps(open_clip.get_model_config(source.name)))
    if source.options.get("force_quick_gelu"):
        model["quick_gelu"] = True
    preprocess = network.model.visual.preprocess_cfg
    return {"model_cfg": model, "preprocess_cfg": {key: preprocess[key] for key in PREPROCESS}}
