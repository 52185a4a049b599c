"""Loading CLIP: from a folder, a file, a hub; what pins it; texts longer than it reads."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from helpers.paths import ROOT
from helpers.training_world import MODEL, PREPROCESS, load_tiny, save_clip
from PIL import Image
from safetensors.torch import load_file, save_file

from ltgc.clip.encoder import Clip
from ltgc.clip.weights import load_clip, locate_clip
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.clip import ClipSettings

COMMIT = "1234567890" * 4
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    save_clip(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache on a machine that is offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model under names of open_clip's own, its weights under tags that say how they were trained."""
    configs = {"tiny": MODEL, "tiny-quickgelu": MODEL | {"quick_gelu": True}}
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", configs)
    tag = {"url": "", "hf_hub": "someone/tiny/", "interpolation": "bicubic", "resize_mode": "squash"}
    tags = {
        "plain": tag | {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)},
        "openai": tag | {"mean": (0.1, 0.1, 0.1), "std": (0.2, 0.2, 0.2), "quick_gelu": True},
    }
    monkeypatch.setattr("open_clip.pretrained._PRETRAINED", {"tiny": tags, "tiny-quickgelu": tags})


def on_hub(hub: Path, saved: Path, repository: str, commit: str = COMMIT) -> Path:
    """Put the model into the cache as huggingface_hub lays it out; the folder of its snapshot."""
    root = hub / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    shutil.copytree(saved, snapshot)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs/main").write_text(commit)
    return snapshot


def load(model: str, pretrained: str | None = None, revision: str | None = None) -> Clip:
    return load_clip(ClipSettings(model=model, pretrained=pretrained, revision=revision), "cpu")


def error(model: str, pretrained: str | None = None, revision: str | None = None) -> str:
    with pytest.raises(LTGCError) as caught:
        load(model, pretrained, revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_weights(model: Clip, saved: Path) -> bool:
    return torch.equal(model.model.visual.proj, load_file(saved / WEIGHTS)["visual.proj"])


# --- where it comes from -----------------------------------------------------------------------------------


def test_a_folder_is_pinned_by_what_sha256sum_prints_of_all_its_files(saved):
    listing = subprocess.run("sha256sum * | sha256sum", shell=True, cwd=saved, check=True, stdout=subprocess.PIPE)
    revision = f"sha256:{listing.stdout.decode().split()[0]}"
    assert same_weights(load(f"local-dir:{saved}", revision=revision), saved)
    assert locate_clip(ClipSettings(model=f"local-dir:{saved}", pretrained=None)).revision == revision


def test_another_model_than_the_pinned_one_is_an_error_that_says_what_it_is(saved, tmp_path):
    copy = tmp_path / "clip"
    shutil.copytree(saved, copy)
    pinned = locate_clip(ClipSettings(model=f"local-dir:{copy}", pretrained=None)).revision
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    now = locate_clip(ClipSettings(model=f"local-dir:{copy}", pretrained=None)).revision
    message = error(f"local-dir:{copy}", revision=pinned)
    assert message.startswith("clip.revision:") and now in message and pinned in message


def test_a_safetensors_file_loads_into_a_named_architecture_and_is_pinned_by_its_checksum(saved, architecture):
    file = saved / WEIGHTS
    revision = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert same_weights(load("tiny", str(file), revision), saved)
    assert "clip.revision" in error("tiny", str(file), "sha256:" + "0" * 64)


def test_a_hub_model_loads_from_the_cache_and_is_pinned_by_its_commit(hub, saved):
    on_hub(hub, saved, "someone/flowers")
    source = locate_clip(ClipSettings(model="hf-hub:someone/flowers", pretrained=None))
    assert source.revision == COMMIT
    model = load("hf-hub:someone/flowers", revision=COMMIT)
    assert same_weights(model, saved)
    assert model.preprocess.transforms[-1].mean == PREPROCESS["mean"]


def test_a_pinned_commit_is_loaded_whatever_the_hub_says_is_newest(hub, saved, tmp_path):
    on_hub(hub, saved, "someone/flowers")
    newer = tmp_path / "newer"
    shutil.copytree(saved, newer)
    save_file({k: v + 1 for k, v in load_file(saved / WEIGHTS).items()}, newer / WEIGHTS)
    on_hub(hub, newer, "someone/flowers", "f" * 40)
    assert not same_weights(load("hf-hub:someone/flowers"), saved)
    assert same_weights(load("hf-hub:someone/flowers", revision=COMMIT), saved)


def test_a_commit_that_is_not_to_be_had_and_a_checksum_of_a_hub_model_are_errors(hub, saved):
    on_hub(hub, saved, "someone/flowers")
    assert "hf-hub:someone/flowers" in error("hf-hub:someone/flowers", revision="a" * 40)
    assert "by its commit" in error("hf-hub:someone/flowers", revision="sha256:" + "0" * 64)
    assert "hf-hub:someone/none" in error("hf-hub:someone/none")


def test_a_tag_brings_its_weights_preprocessing_and_quick_gelu(hub, saved, architecture):
    on_hub(hub, saved, "someone/tiny")
    plain, quick = load("tiny", "plain", COMMIT), load("tiny", "openai", COMMIT)
    assert same_weights(plain, saved) and same_weights(quick, saved)
    gelu = {type(model.model.visual.transformer.resblocks[0].mlp.gelu).__name__ for model in (plain, quick)}
    assert gelu == {"GELU", "QuickGELU"}
    assert quick.preprocess.transforms[-1].mean == (0.1, 0.1, 0.1)


def test_weights_that_were_trained_without_quick_gelu_are_refused_by_an_architecture_with_it(
    hub, saved, architecture
):
    on_hub(hub, saved, "someone/tiny")
    assert load("tiny-quickgelu", "openai").model is not None
    assert error("tiny-quickgelu", "plain").endswith("name tiny")


def test_openais_weights_are_known_to_need_quick_gelu():
    assert open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"]
    assert not open_clip.get_model_config("ViT-B-32").get("quick_gelu")


@pytest.mark.parametrize(
    ("model", "pretrained", "says"),
    [
        ("tiny", None, "clip.pretrained: None is neither"),  # and never random weights
        ("tiny", "laion", "laion is neither a .safetensors file nor one of open_clip's tags for tiny (plain"),
        ("tinny", "plain", "near it: tiny"),
        ("tiny", "gone.safetensors", "gone.safetensors"),
        ("local-dir:{saved}", "plain", "set it to null"),
        ("local-dir:{saved}/none", None, "no open_clip_config.json"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_to_be_had_is_one_clear_line(saved, architecture, model, pretrained, says):
    assert says in error(model.format(saved=saved), pretrained)


@pytest.mark.parametrize("broken", ["no weights", "cut off", "another shape", "no config"])
def test_a_broken_folder_is_one_clear_line_and_never_random_weights(saved, tmp_path, broken):
    folder = tmp_path / "clip"
    shutil.copytree(saved, folder)
    weights = folder / WEIGHTS
    if broken == "no weights":
        weights.unlink()
    if broken == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    if broken == "another shape":
        save_file({**load_file(weights), "visual.proj": torch.zeros(3, 3)}, weights)
    if broken == "no config":
        (folder / "open_clip_config.json").write_text("{}")
    assert f"local-dir:{folder}" in error(f"local-dir:{folder}")


# --- pixels ------------------------------------------------------------------------------------------------


def test_pixels_normalised_in_a_batch_are_open_clips_preprocessing_to_the_bit(saved):
    model = load_tiny(f"local-dir:{saved}")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (20, 24 + i, 3), dtype=np.uint8)) for i in range(5)]
    batch = model.normalise(torch.stack([model.pixels(picture) for picture in pictures]))
    assert torch.equal(batch, torch.stack([model.preprocess(picture) for picture in pictures]))


# --- long texts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(saved: Path) -> Clip:
    return load_tiny(f"local-dir:{saved}")  # reads 16 tokens


LONG = "A photo of the class rose with red petals, yellow thorns, round leaves, long stamens."


def test_a_text_that_is_too_long_is_cut_at_the_last_feature_that_fits(reader):
    assert reader.fitting([LONG, "A photo of a rose."]) == [
        "A photo of the class rose with red petals, yellow thorns.",
        "A photo of a rose.",
    ]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A photo of the class rose with many red petals that are long and thin and are set in rings.",
         "A photo of the class rose."),
        ("a rose " * 20, ("a rose " * 7).strip()),
        ("ro" * 3000, None),  # one word: nothing but letters to cut between
        ("🌹" * 300, None),
    ],
)  # fmt: skip
def test_a_text_without_a_feature_that_fits_is_cut_at_the_best_place_there_is(reader, text, cut):
    found = reader.fitting([text])[0]
    assert found and text.startswith(found.rstrip(".")) and found == (cut or found)
    assert reader.fitting([found]) == [found]


def test_a_text_that_fits_to_the_last_token_is_left_alone(reader):
    fitting, long = "a " * 14, "a " * 15
    assert reader.context_length == 16
    assert reader.fitting([fitting, long]) == [fitting, "a " * 13 + "a"]


def test_the_features_of_a_long_text_are_those_of_its_cut_form_and_the_terminal_says_so(reader, capfd):
    short = reader.fitting([LONG])
    assert torch.equal(reader.text_features([LONG]), reader.text_features(short))
    said = capfd.readouterr().err
    assert "CLIP reads 16 tokens: 1 of 1 texts were cut" in said
    assert said.count("were cut") == 1


def test_the_embedded_clip_cuts_its_texts_too():
    model = load_tiny(f"local-dir:{ROOT / 'embedded/clip'}")
    long = "A photo of the class rose with " + ", ".join(f"{n} red petals" for n in ["five", "six"] * 20) + "."
    found = model.fitting([long])[0]
    assert found.endswith("red petals.") and long.startswith(found[:-1]) and len(found) < len(long)
