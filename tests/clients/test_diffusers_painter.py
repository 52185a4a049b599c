"""Drawing on this machine: real diffusers code on a tiny Stable Diffusion with random weights."""

import functools
import io
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ltgc.clients import ledger, project
from ltgc.clients.budget import Budget
from ltgc.clients.database import Database
from ltgc.clients.painter import Drawing
from ltgc.clients.start import Start
from ltgc.data.images import ImageFile, content_hash
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.pins import fingerprint
from ltgc.pipeline.settings.servers import BudgetSettings, Price

pytest.importorskip("diffusers")
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from helpers.local_drawing import draw, lines, section
from helpers.random_diffusers import save_lora, save_pipeline

ROSES = [(f"a rose, {colour}", seed) for seed, colour in enumerate(["red", "white", "pink", "yellow", "dark red"])]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


def pixels(drawing: Drawing) -> np.ndarray:
    assert drawing.image is not None
    return np.asarray(Image.open(io.BytesIO(drawing.image))).astype(int)


def spent(folder: Path, prices: Budget) -> tuple[int, float | None]:
    (line,) = Database(Path(f"{folder} pool"), "").write_now(
        lambda db: ledger.spent(db, project.name(prices.caps), prices)
    )
    return line.calls, line.usd


@pytest.fixture
def floats(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[bytes]]:
    """For each prompt, the images that diffusers gave, before they are rounded to 8 bits."""
    given: dict[str, set[bytes]] = defaultdict(set)
    call = StableDiffusionPipeline.__call__

    @functools.wraps(call)
    def noting(*args: Any, **options: Any) -> Any:
        drawn = call(*args, **options)
        for prompt, image in zip(options["prompt"], drawn.images, strict=True):
            given[prompt].add(image.tobytes())
        return drawn

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", noting)
    return given


def test_one_seed_is_one_image_to_the_last_bit_whatever_is_in_its_batch(pipeline, tmp_path, floats):
    settings = section(pipeline, batch_size=4)
    first = draw(settings, tmp_path / "a", *ROSES)
    assert pixels(first[0]).shape == (16, 16, 3) and pixels(first[0]).std() > 10
    assert len({drawing.image for drawing in first}) == 5
    assert draw(settings, tmp_path / "b", *reversed(ROSES)) == first[::-1]
    assert draw(settings, tmp_path / "c", ROSES[2]) == first[2:3]
    assert [len(images) for images in floats.values()] == [1] * 5
    for one, other in zip(first, draw(section(pipeline, batch_size=1), tmp_path / "d", *ROSES), strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_what_is_stored_is_not_drawn_again_and_needs_no_model_where_it_is_pinned(pipeline, tmp_path):
    pinned, folder = section(pipeline, revision=fingerprint(Path(pipeline))), tmp_path / "store"
    first = draw(pinned, folder, *ROSES[:1])
    (line,) = lines(folder)
    assert line["model"] == f"diffusers:{pipeline}"
    elsewhere = Path(pipeline).rename(tmp_path / "moved")
    try:
        assert draw(pinned, folder, *ROSES[:1]) == first
    finally:
        elsewhere.rename(pipeline)


def test_everything_that_determines_an_image_makes_it_another_one_in_the_store(pipeline, tmp_path):
    lora = save_lora(pipeline, tmp_path / "lora")
    others: list[dict[str, Any]] = [
        {},
        {"steps": 3},
        {"guidance": 2.0},
        {"negative_prompt": "blue"},
        {"scheduler": "EulerAncestralDiscreteScheduler"},
        {"lora": {"path": lora}},
        {"lora": {"path": lora.parent, "scale": 0.5}},
        {"dtype": "bfloat16"},
        {"size": "24x16"},
    ]
    drawn = [draw(section(pipeline, **other), tmp_path / "store", *ROSES[:1])[0] for other in others]
    assert len({drawing.image for drawing in drawn}) == len(lines(tmp_path / "store")) == len(others)
    assert pixels(drawn[-1]).shape == (16, 24, 3)  # width x height
    same = section(pipeline, batch_size=3, wait=0.0, vae_slicing=True)
    assert draw(same, tmp_path / "store", *ROSES[:1]) == drawn[:1]


def test_other_weights_at_the_same_place_are_another_model(pipeline, tmp_path):
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    draw(section(str(copy)), tmp_path / "store", *ROSES[:1])
    pin = fingerprint(copy)
    config = copy / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace('"prediction_type": "epsilon"', '"prediction_type": "sample"'))
    draw(section(str(copy)), tmp_path / "store", *ROSES[:1])
    assert len(lines(tmp_path / "store")) == 2
    with pytest.raises(LTGCError, match=r"revision: .* is sha256:\w+, not sha256:\w+"):
        draw(section(str(copy), revision=pin), tmp_path / "other", *ROSES[:1])


def test_a_local_model_costs_nothing_unless_it_is_priced_and_counts_as_calls(pipeline, tmp_path):
    free = Budget(BudgetSettings(max_usd=0.0, max_calls=3))
    draw(section(pipeline), tmp_path / "a", *ROSES[:3], budget=free)
    assert spent(tmp_path / "a", free) == (3, 0.0)
    with pytest.raises(LTGCError, match="max_calls: 3 calls are reached"):
        draw(section(pipeline), tmp_path / "a", *ROSES, budget=free)
    priced = Budget(prices={f"diffusers:{pipeline}": Price(image=0.5)})
    draw(section(pipeline), tmp_path / "b", *ROSES[:3], budget=priced)
    assert spent(tmp_path / "b", priced) == (3, 1.5)


def test_what_the_safety_checker_blackens_is_refused_and_not_drawn_again(tmp_path):
    model = save_pipeline(tmp_path / "pipeline", refuses=True)
    (drawing,) = draw(section(model), tmp_path / "store", *ROSES[:1])
    assert (drawing.image, drawing.reason, drawing.refinable) == (None, "refused", True)
    (line,) = lines(tmp_path / "store")
    assert line["failure"] == "refused"


def test_a_prompt_that_is_too_long_is_cut_before_a_feature_and_says_so(pipeline, tmp_path):
    prompt = "A photo of the class rose, with " + ", ".join(["dark red petals"] * 5) + " in a garden"
    (drawing,) = draw(section(pipeline), tmp_path, (prompt, 7))
    assert drawing.cut and drawing.image
    (line,) = lines(tmp_path)
    assert line["cut"] == "A photo of the class rose, with " + ", ".join(["dark red petals"] * 3)
    assert draw(section(pipeline), tmp_path, (prompt, 7)) == [drawing]
    assert draw(section(pipeline), tmp_path, (line["cut"], 7))[0] == Drawing(7, drawing.image)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scheduler": "FlowMatchLCMScheduler"}, r"diffusers\.scheduler: .* set one of DDIMScheduler, "),
        ({"variant": "fp16"}, "t2i.model .*variant=fp16"),
        ({"offload": "model"}, r"diffusers\.offload: there is no GPU"),
        ({"size": "17x16"}, "divisible by 8"),
        ({"size": "20000000x20000000", "vae_tiling": True}, r"out of memory drawing 2 x .* set .*offload: model"),
        ({"lora": {"path": "nowhere"}}, r"lora\.path: nowhere: name one \.safetensors file; found nothing"),
        ({"model": "org/name"}, r"revision: org/name is not pinned; set the commit that https://"),
        ({"model": "nowhere"}, r"t2i\.model: 'nowhere' is no folder and no hub name"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_that_names_the_key(pipeline, tmp_path, changes, message):
    settings = section(pipeline, **{k: v for k, v in changes.items() if k not in ("size", "model")})
    settings = settings.model_copy(update={k: v for k, v in changes.items() if k in ("size", "model")})
    with pytest.raises(LTGCError, match=message) as error:
        draw(settings, tmp_path, *ROSES[:1])
    assert "\n" not in str(error.value)


def test_a_negative_prompt_is_an_error_where_it_would_not_be_read(pipeline, tmp_path):
    with pytest.raises(ValueError, match="no effect with guidance <= 1"):
        section(pipeline, negative_prompt="blue", guidance=1.0)
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "LatentConsistencyModelPipeline"))
    with pytest.raises(LTGCError, match="negative_prompt: LatentConsistencyModelPipeline takes none"):
        draw(section(str(copy), negative_prompt="blue"), tmp_path / "store", *ROSES[:1])


def test_pickled_weights_are_refused(pipeline, tmp_path):
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(LTGCError, match="safetensors"):
        draw(section(str(copy)), tmp_path / "store", *ROSES[:1])


def test_a_lora_of_another_model_is_refused(pipeline, tmp_path):
    from safetensors.torch import save_file

    save_file({"transformer.x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(LTGCError, match=r"lora\.path: .*other\.safetensors"):
        draw(section(pipeline, lora={"path": tmp_path / "other.safetensors"}), tmp_path / "store", *ROSES[:1])


def test_images_that_are_no_numbers_stop_the_stage_and_name_the_dtype(tmp_path):
    model = save_pipeline(tmp_path / "pipeline", overflows=True)
    with pytest.raises(LTGCError, match=r"diffusers\.dtype: .* overflows in float32"):
        draw(section(model), tmp_path / "store", *ROSES[:1])
    assert not lines(tmp_path / "store")


def test_a_drawing_starts_from_its_photo_at_its_strength_in_batches_of_one_strength(pipeline, tmp_path):
    Image.effect_noise((20, 20), 90).save(tmp_path / "photo.png")
    photo = ImageFile(str(tmp_path / "photo.png"), content_hash((tmp_path / "photo.png").read_bytes()))
    weak, strong = (Start("photo.png", photo, strength) for strength in (0.25, 1.0))
    settings = section(pipeline, steps=4).model_copy(update={"start_strengths": [0.25, 1.0]})
    asked = [("a rose", 1, weak), ("a rose", 1, strong), ("a tree", 2, weak)]
    near, far, other = draw(settings, tmp_path / "a", *asked)
    assert len({near.image, far.image, other.image}) == 3
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(pipeline, safety_checker=None)
    same = {"num_inference_steps": 4, "guidance_scale": 5.0, "generator": torch.Generator().manual_seed(1)}
    resized = Image.open(tmp_path / "photo.png").convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    (expected,) = pipe("a rose", image=resized, strength=0.25, **same).images
    assert np.abs(pixels(near) - np.asarray(expected).astype(int)).max() <= 1
    calls = spent(tmp_path / "a", Budget())
    assert draw(settings, tmp_path / "a", *asked) == [near, far, other]
    assert spent(tmp_path / "a", Budget()) == calls
    with pytest.raises(LTGCError, match=r"t2i\.size: photos"):
        draw(settings.model_copy(update={"size": "auto"}), tmp_path / "b", ("a rose", 1, weak))
