"""The doctor: each check on a case that passes and on one that fails, with real servers, folders and remotes."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.repo import Repo
from helpers.openai_server import Body, Fault, Hang, Script, chat_body
from helpers.paths import ROOT, link_prompts
from helpers.server_settings import png
from huggingface_hub import constants
from langsmith.utils import get_env_var
from safetensors.torch import save_file

from ltgc.commands import doctor
from ltgc.commands.doctor import models
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import completed

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What of a clone the checks look at, with no remote."""
    monkeypatch.chdir(tmp_path)
    link_prompts(tmp_path)
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, name)
    Path("embedded").symlink_to(ROOT / "embedded")
    return tmp_path


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def settings(**changes: Any) -> Params:
    """params.yaml with some keys changed: t2i__size="1x1"."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    return Params.model_validate(completed(values))


def check(name: str, **changes: Any) -> str:
    return doctor.CHECKS[name](settings(**changes))


def fails(name: str, **changes: Any) -> str:
    with pytest.raises(LTGCError) as error:
        check(name, **changes)
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    return str(error.value)


def asks(script: Script, **changes: Any) -> dict[str, Any]:
    return {"llm__base_url": script.base_url, "llm__model": "m", "llm__api_key_env": "TEST_KEY"} | {
        f"llm__{name}": value for name, value in changes.items()
    }


def test_the_embedded_default_is_fit(clone, capsys):
    Repo.init(no_scm=True)
    doctor.main()
    lines = capsys.readouterr().out
    assert lines.count("✓") == len(doctor.CHECKS) and "✗" not in lines


def test_what_is_not_fit_is_a_line_with_a_remedy_and_exit_code_1(clone, capsys, monkeypatch):
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in ("folders", "images")})
    values["data"]["root"] = "[red]nowhere[/]"
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit) as stopped:
        doctor.main()
    lines = capsys.readouterr().out
    assert stopped.value.code == 1 and lines.count("✗") == 1
    assert "data.root: [red]nowhere[/]: No such file or directory" in lines


def test_packages_are_those_of_pyproject(clone):
    assert "packages" in check("packages")
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    Path("pyproject.toml").write_text(
        text.replace("dependencies = [", 'dependencies = [\n  "torch<1", "nosuch>=2",', 1)
    )
    assert fails("packages").startswith("not installed: torch<1, nosuch>=2; run")
    Path("pyproject.toml").write_text('[project]\nrequires-python = ">=99"\ndependencies = []')
    assert ">=99; make the environment with another" in fails("packages")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_only_missed_where_one_is_asked_for(clone):
    assert "no GPU" in check("device")
    assert "train.device: cuda, but torch" in fails("device", train__device="cuda")
    local = {"t2i__backend": "diffusers", "t2i__diffusers__device": "cuda"}
    assert "t2i.diffusers.device: cuda" in fails("device", **local)
    assert "no GPU" in check("device", **local, t2i__diffusers__cluster="auto")


def pipeline(folder: Path, numbers: int) -> Path:
    """What of a saved pipeline the checks look at; the weights are a hole in the file."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    return folder


def test_weights_are_held_against_the_memory(clone):
    assert "CLIP 0.0 GiB" in check("memory")
    local: dict[str, Any] = {"t2i__backend": "diffusers", "t2i__model": str(pipeline(clone / "small", 2**20))}
    assert "T2I 0.0 GiB" in check("memory", **local)
    local["t2i__model"] = str(pipeline(clone / "large", 2**50))
    assert "needs about 2,726,297.6 GiB" in fails("memory", **local).replace("2726297.6", "2,726,297.6")
    assert "T2I 0.0 GiB" in check("memory", **local, t2i__diffusers__offload="sequential")


def test_the_images_to_come_are_held_against_the_disk(clone):
    assert "once `dvc repro prepare` has run" in check("disk")
    rose = ClassRecord(label=0, name="rose", slug="0000-rose", train=4, val=0, test=1, shot="few")
    files.write_records_csv(CLASSES, [rose], ClassRecord)
    assert "images of 64 x 64, 3 copies" in check("disk")
    assert "lower extend.target or t2i.size" in fails("disk", t2i__size="1000000x1000000")


def test_folders_can_be_written_to_and_what_is_in_their_way_is_named(clone):
    assert "can be written to" in check("folders")
    Path("store").write_text("a file")
    assert "store: Not a directory; make it a folder" in fails("folders")


def test_the_pool_can_be_written_to_unless_nothing_is_paid(script, pool_folder):
    assert check("pool").startswith("not needed")
    assert check("pool", **asks(script)).startswith(str(pool_folder))
    (pool_folder / "pool.sqlite").write_bytes(b"not a database" * 1000)
    assert "name another folder" in fails("pool", **asks(script))


@pytest.mark.parametrize("variable", ["LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"])
def test_tracing_that_uploads_prompts_and_photos_is_told_of(variable, monkeypatch):
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING"):
        monkeypatch.delenv(name, raising=False)
    get_env_var.cache_clear()
    assert check("tracing").startswith("off")
    monkeypatch.setenv(variable, "true")
    get_env_var.cache_clear()
    assert "uploads every prompt and photo" in fails("tracing")
    get_env_var.cache_clear()


def test_images_are_looked_for_where_the_source_has_them(clone):
    assert check("images") == "wildflowers in embedded/wildflowers"
    Path("photos").mkdir()
    assert "data.root: photos is empty" in fails("images", data__source="folder", data__root="photos")
    Path("photos/list.txt").touch()
    assert "data.root: photos has no species.yaml" in fails("images", data__root="photos")
    assert check("images", data__source="list", data__root="photos") == "list in photos"
    elsewhere = {"data__source": "list", "data__root": "photos", "data__images": "/nowhere"}
    assert "data.images: /nowhere: No such file" in fails("images", **elsewhere)


def test_a_key_is_named_and_not_shown(script, monkeypatch):
    away = asks(script, base_url="https://api.example.com/v1")
    assert check("key of llm", **away) == "$TEST_KEY is set"
    assert check("key of t2i", t2i__backend="diffusers").startswith("none needed")
    monkeypatch.delenv("TEST_KEY")
    assert "$TEST_KEY is not set" in fails("key of llm", **away)


def test_a_server_answers_and_knows_its_model(script):
    assert check("server of llm", **asks(script)) == f"{script.base_url} knows m"
    assert script.keys == {f"Bearer {KEY}"}
    assert "knows no 'mm'; it knows m" in fails("server of llm", **asks(script, model="mm"))
    script.models = Fault(404)
    assert "lists no models" in check("server of llm", **asks(script))
    assert check("server of t2i", t2i__backend="diffusers").startswith("not asked")


@pytest.mark.parametrize("days, warns", [(89, True), (91, False), (None, False)])
def test_a_model_that_is_soon_shut_down_is_a_warning(script, days, warns):
    end = (datetime.now(UTC) + timedelta(days)).date().isoformat() if days else None
    script.models = Body({"object": "list", "data": [{"id": "m", "object": "model", "shutdown_date": end}]})
    said = check("server of llm", **asks(script))
    assert (f"m is shut down on {end}, in 89 days; choose another" in said) == warns
    assert isinstance(said, doctor.servers.Warning) == warns


def test_try_sends_one_request_to_each_model_and_prints_its_cost(clone, script, capsys, monkeypatch):
    script.chat = lambda request: chat_body("A photo of the class apple, {round}{on a table}.", thinking=7)
    script.image = lambda request: png()
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for name in doctor.SERVERS:
        values[name] |= {"base_url": script.base_url, "model": "m", "api_key_env": "TEST_KEY"}
    values["prices"]["m"] = {"input": 1, "output": 10, "image": 0.5}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(doctor, "CHECKS", {})
    doctor.main(try_models=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "10 tokens in, 10 out, 7 of them thinking; 0.000110 USD" in printed
    assert "a drawing of 4 x 4 pixels" in printed and "0.500000 USD" in printed
    assert script.calls == 3 and script.requests[0]["max_completion_tokens"] == values["llm"]["max_tokens"]
    assert not Path("store").exists()


@pytest.mark.parametrize(
    "answer, remedy",
    [
        (chat_body("", "length", thinking=300), "llm.reasoning_effort: none or lower, or raise max_tokens"),
        (
            Fault(
                400, "unsupported_value", "Unsupported value: 'temperature' does not support 0.7 with this model."
            ),
            "set llm.temperature: null (or reasoning_effort: none)",
        ),
    ],
)
def test_try_finds_what_a_model_refuses_before_the_first_paid_run(clone, script, answer, remedy):
    script.chat = lambda request: answer
    with pytest.raises(LTGCError, match=re.escape(remedy)):
        doctor.TRIALS["try llm"](settings(**asks(script)))


def test_try_asks_about_features_as_the_filter_does_where_it_asks(clone, script):
    try_filter = doctor.TRIALS["try filter"]
    assert try_filter(settings(**asks(script))) == "not asked: filter.scorer is contrast" and not script.calls
    scorer: dict[str, Any] = {"filter__scorer": "ask", "filter__threshold": 1.0}
    vision = {key.replace("llm", "vision"): value for key, value in asks(script).items()}
    script.chat = lambda request: chat_body("1. yes\n2. no")
    assert "sees 1 of 2 features in a drawing, 10 tokens in" in try_filter(settings(**scorer, **vision))
    content = script.requests[0]["messages"][0]["content"]
    assert {part["type"] for part in content} == {"text", "image_url"} and "1. a plain red" in str(content)
    script.chat = lambda request: chat_body("I see a red area")
    with pytest.raises(LTGCError, match="'I see a red area' is no yes or no to each of 2 features"):
        try_filter(settings(**scorer, **vision))


def test_every_prompt_is_there_and_a_template(clone):
    assert check("prompts") == "10 files in prompts"
    Path("prompts").unlink()
    shutil.copytree(ROOT / "prompts", "prompts")
    Path("prompts/ask_features.txt").unlink()
    assert "prompts/ask_features.txt: not there" in fails("prompts")


@pytest.mark.parametrize(
    "answer, message",
    [
        (Fault(401, message=f"wrong key {KEY}"), "check the key in $TEST_KEY"),
        (Fault(503, message="down for repairs"), "http_503; it said: .*down for repairs"),
        (Body("no list"), "malformed_reply"),
        (Hang(), "timeout"),
    ],
)
def test_a_server_that_does_not_answer_well_is_named(script, answer, message):
    script.models = answer
    said = fails("server of llm", **asks(script, timeout=0.3))
    assert said.startswith(f"llm.base_url {script.base_url}") and all(part in said for part in message.split(".*"))


def test_a_server_that_is_not_there_is_named(script):
    assert "nothing answers" in fails("server of llm", **asks(script, base_url="http://127.0.0.1:9/v1"))


def test_a_cap_in_money_needs_prices():
    assert check("prices") == "every model has one"
    assert check("prices", llm__model="new") == "no price for new: the bill will say so"
    assert "no price for new" in fails("prices", llm__model="new", budget__max_usd=1)


def test_clip_is_there_and_the_one_that_is_pinned(clone):
    assert check("CLIP").endswith("is the one that is pinned")
    assert "not pinned: clip.revision: sha256:" in check("CLIP", clip__revision=None)
    said = check("CLIP", data__source="folder")
    assert isinstance(said, doctor.servers.Warning) and "drawn wildflowers only" in said
    assert "clip.revision" in fails("CLIP", clip__revision="sha256:" + "0" * 64)
    assert "no open_clip_config.json" in fails("CLIP", clip__model="local-dir:nowhere")


def test_weights_that_are_to_be_downloaded_need_a_hub_that_answers(clone, script, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(clone / "hub"))
    far: dict[str, Any] = {"clip__model": "ViT-B-32", "clip__pretrained": "openai", "clip__revision": None}
    local = {"t2i__backend": "diffusers", "t2i__model": "org/name", "t2i__diffusers__revision": "0" * 40}
    monkeypatch.setattr(constants, "ENDPOINT", script.base_url)
    assert check("CLIP", **far) == "ViT-B-32 openai is not on this machine; it will be downloaded"
    assert check("local T2I", **local) == "org/name is not on this machine; it will be downloaded"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in fails("CLIP", **far)
    assert "http://127.0.0.1:9 does not answer" in fails("local T2I", **local)


def test_a_pipeline_is_there_in_safetensors(clone):
    assert check("local T2I") == "not needed: a server draws"
    local = {"t2i__backend": "diffusers", "t2i__model": str(pipeline(clone / "small", 9))}
    assert "is there, but not pinned: t2i.diffusers.revision: sha256:" in check("local T2I", **local)
    for weights in Path("small").rglob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    assert "is no diffusers pipeline in safetensors" in fails("local T2I", **local)
    assert "is not pinned" in fails("local T2I", t2i__backend="diffusers", t2i__model="org/name")


def test_a_remote_is_none_or_can_be_reached(clone):
    assert "is no DVC repository" in fails("DVC remote")
    Repo.init(no_scm=True)
    assert check("DVC remote").startswith("none is set")
    config, no_git = Path(".dvc/config"), "[core]\n    no_scm = true\n    remote = shared\n"
    config.write_text(f"{no_git}['remote \"shared\"']\n    url = {clone / 'storage'}\n")
    assert check("DVC remote") == "shared can be reached"
    Path("storage").write_text("a file")
    assert "remote shared: " in fails("DVC remote")
    config.write_text(f"{no_git}['remote \"shared\"']\n    url = http://127.0.0.1:9/x\n")
    assert "see `dvc remote list` and `dvc doctor`" in fails("DVC remote")


def test_numbers_are_counted_from_headers_and_a_variant_is_not_counted_twice(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(())}, tmp_path / "model.safetensors", {"format": "pt"})
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "model.fp16.safetensors")
    save_file({"a": torch.zeros(5)}, tmp_path / "only.fp16.safetensors")
    assert models.parameters(tmp_path) == 6 + 1 + 5
