"""Ablations of the loops: the pipeline's own stages in a folder a variant, on a tiny world with a real server."""

import io
import json
import re
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import training_world, warm_commands
from helpers.openai_server import Fault, Script, openai_server, said
from helpers.paths import ROOT
from PIL import Image

from ltgc.clients import method_costs
from ltgc.evaluation import ablations
from ltgc.evaluation.comparison import METRICS
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.asking import ASK, AskMetrics
from ltgc.pipeline.artifacts.descriptions import EXISTING, EXTENDED, ExistingDescription, ExtendedDescription
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.replies import CALLS
from ltgc.pipeline.artifacts.runs import Run, RunMetrics
from ltgc.pipeline.errors import LTGCError
from stages import ablate, compare, evaluate, extend, generate, quality, templates, train

NAME = training_world.NAMES[2]  # the only class with fewer than TARGET images
TARGET = 9
VARIANTS = {
    "unchanged": {},
    "bare": {"extend.source": "class_name", "filter.max_refinements": 0},
    "one_round": {"extend.max_rounds": 1, "extend.repetition_check": False},
}


def chat(request: dict[str, Any]) -> str:
    """Two new descriptions a question; the repetition check drops the last one."""
    text = said(request)
    if "Template 2" in text:
        name = next(name for name in training_world.NAMES if name in text)
        return f"A photo of the class {name} with {{blue}}{{small}}"
    listed = re.findall(r"\d+\. (A photo of the class .*)", text)
    if "exclude" in text:
        return "\n".join(f"{i}. {line}" for i, line in enumerate(listed[:-1], 1))
    return "\n".join(
        f"A photo of the class {NAME}, with {len(listed) + n} petals in a meadow of {len(listed) + n} stones."
        for n in (1, 2)
    )


def image(request: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 24), (30, 30, hash_byte(request["prompt"] + str(request["seed"])))).save(file, "PNG")
    return file.getvalue()


def hash_byte(text: str) -> int:
    return sum(text.encode()) % 256


def set_params(**sections: dict[str, Any]) -> None:
    values = yaml.safe_load(params.PARAMS.read_text(encoding="utf-8"))
    for name, section in sections.items():
        values[name] |= section
    params.PARAMS.write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture(scope="module")
def ltgc(tmp_path_factory: pytest.TempPathFactory):
    """A world in which LTGC itself has run, and what its server was asked."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch, openai_server() as script:
        patch.chdir(root)
        patch.setenv("TEST_KEY", "k")
        training_world.world(root, training_world.save_clip(root / "clip"), lr=0.05)
        server = {"base_url": script.base_url, "api_key_env": "TEST_KEY", "retries": 0, "max_failed_fraction": 0.0}
        accepting = {"scorer": "cosine", "threshold": -1.0, "offset": 0.0}
        set_params(llm=server, t2i=server, extend={"target": TARGET}, filter=accepting)
        existing = {"label": 2, "class_name": NAME, "image": "x", "features": "blue", "scene": "in a wood",
                    "description": f"A photo of the class {NAME}, blue in a wood.", "kept": True, "reason": None,
                    "replies": 1}  # fmt: skip
        files.write_jsonl(EXISTING, [ExistingDescription.model_validate(existing)])
        ablations.VARIANTS.parent.mkdir()
        ablations.VARIANTS.write_text(yaml.safe_dump({"variants": VARIANTS}, sort_keys=False), encoding="utf-8")
        script.chat, script.image = chat, image
        for loop in (extend, templates, generate, quality):
            loop.main()
        for seed in ("0", "1"):
            train.main("balancemix", seed)
        evaluate.main("balancemix")
        yield root, script


@pytest.fixture
def world(ltgc: tuple[Path, Script], monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(ltgc[0])
    monkeypatch.setenv("TEST_KEY", "k")
    monkeypatch.setattr(sys, "executable", warm_commands.python())  # for the stages that it starts
    script = ltgc[1]
    script.reset()
    script.chat, script.image = chat, image
    return script


def loops(variant: str) -> None:
    """What of `ablate` a server is asked in; training takes most of its time."""
    ablate.take_in_replies()
    with chdir(ablations.build(variant, VARIANTS[variant])):
        for loop in (extend, templates, generate):
            loop.main()


def test_a_variant_that_changes_nothing_asks_nothing_and_reaches_what_ltgc_reached(world):
    """With an empty pool, as if what LTGC asked had been pulled."""
    world.chat = world.image = lambda request: Fault(500)
    ablate.main("unchanged")
    assert world.calls == 0
    found = files.read_record(ablations.RESULTS / "unchanged.json", ablations.Result)
    assert found == ablations.result([0, 1])
    assert found.generated > 0
    assert len({run.all for run in found.runs} | {run.ece for run in found.runs}) > 2  # two different runs


def test_the_class_name_alone_is_drawn_as_often_as_images_are_missing(world):
    loops("bare")
    folder = ablations.RUNS / "bare"
    drawn = [request for request in world.requests if "prompt" in request]
    assert {request["prompt"] for request in drawn} == {f"A photo of the class {NAME}."}
    (asked,) = [said(request) for request in world.requests if "messages" in request]
    assert "Template 2" in asked and asked.count("\n1. ") == 1 and "\n2. " not in asked  # the existing one only
    attempts = files.read_jsonl(folder / ATTEMPTS, Attempt)
    assert len(attempts) == TARGET - 4
    assert len({attempt.seed for attempt in attempts}) == len(attempts)
    loops("bare")  # what it paid for is kept
    assert world.calls == TARGET - 4 + 1


def test_a_variant_does_not_buy_again_what_dvc_lock_says_was_paid_for(world, tmp_path, monkeypatch):
    """As in a fresh clone, with an empty pool and nothing pulled."""
    monkeypatch.setattr(ablations, "RUNS", tmp_path)
    ran = {
        "params": {"params.yaml": {"llm": {"model": params.load("servers", "llm").llm.model}}},
        "outs": [{"path": "store/extend", "md5": f"{'0' * 32}.dir", "nfiles": 1}],
    }
    params.LOCK.write_text(yaml.safe_dump({"stages": {"extend": ran}}))
    folder = ablations.build("one_round", VARIANTS["one_round"])
    params.LOCK.unlink()
    monkeypatch.chdir(folder)
    values = yaml.safe_load(params.PARAMS.read_text(encoding="utf-8"))
    params.PARAMS.write_text(yaml.safe_dump(values | {"prices": {}}), encoding="utf-8")  # not free
    with pytest.raises(LTGCError, match=r"dvc.lock says that replies of .* were paid for, and not all are here"):
        extend.main()
    assert world.calls == 0


def test_one_round_without_the_check_leaves_fewer_descriptions_and_the_pipelines_own_files_alone(world):
    before = {path: path.read_bytes() for place in ("descriptions", "generated", "store", "metrics")
              for path in sorted(Path(place).rglob("*")) if path.is_file()}  # fmt: skip
    loops("one_round")
    extended = files.read_jsonl(ablations.RUNS / "one_round" / EXTENDED, ExtendedDescription)
    assert [description.round for description in extended] == [1, 1]
    assert all(path.read_bytes() == data for path, data in before.items())


class AllRight:
    """A truth by which every drawing is right and no description repeats another."""

    def represents(self, image: bytes, class_name: str) -> bool:
        return True

    def describes(self, text: str, class_name: str) -> bool:
        return True

    def repeats(self, existing: list[str], extended: list[str]) -> list[bool]:
        return [False] * len(extended)


def test_a_comparison_of_all_systems_trains_no_run_again_that_the_pipeline_has_trained(world, capsys):
    files.write_json(
        ASK,
        AskMetrics(images=0, of=9, all=None, many=None, medium=None, few=None, refused=0, no_class=0).model_dump(),
    )
    files.write_json(CALLS / "describe.json", {"calls": 7, "prompt_tokens": 7_000_000, "completion_tokens": 0})
    ablate.take_in_replies()
    systems = yaml.safe_load((ROOT / ablations.VARIANTS).read_text(encoding="utf-8"))["comparisons"]["systems"]
    assert {"balancemix", "rac", "ltgc_lpt", "ltgc_vl_ltr"} < set(systems["methods"])
    folder = ablations.build("compared", systems)
    ablations.take_finished_runs(folder)
    own = {seed: Path(f"models/balancemix/{seed}/run.json").read_bytes() for seed in (0, 1)}
    with chdir(folder):
        for stage in (extend, templates, generate, quality, train, evaluate, compare):
            stage.main()
        assert {seed: Path(f"models/balancemix/{seed}/run.json").read_bytes() for seed in (0, 1)} == own
        found = ablations.comparison(AllRight()) | {"costs": method_costs.collect()}
    assert f"2 of {2 * len(systems['methods'])} runs are finished already" in capsys.readouterr().err
    assert world.calls == 0
    runs = [run.all for run in ablations.result([0, 1]).runs]
    assert found["compare"]["balancemix"]["all"]["mean"] == pytest.approx(sum(runs) / 2, abs=0.01)
    assert set(found["compare"]) == set(found["costs"]) == set(systems["methods"])
    assert found["loops"]["filter"]["right_accepted"] is not None
    costs = found["costs"]["balancemix"]
    run = files.read_record(Path("models/balancemix/0/run.json"), Run)
    assert costs["drawings"] == run.generated > 0 and costs["trained_parameters"] == run.trained_parameters > 0
    assert costs["seconds"] > 0  # of the runs that were not trained here
    asked = {name: json.loads((folder / CALLS / f"{name}.json").read_text()) for name in method_costs.ALL}
    assert costs["calls"] == sum(counted["calls"] for counted in asked.values())
    assert costs["usd"] == 0  # params.yaml's price of the models that this server has the names of
    tokens = (
        sum(counted["prompt_tokens"] for counted in asked.values()),
        sum(counted["completion_tokens"] for counted in asked.values()),
    )
    # 0.1 and 0.5 USD a million tokens; a drawing of 1024 x 1024 is 197 tokens of 30 USD, and its prompt 5 USD.
    drawn = asked["generate"]["drawings"] * (197 * 30 + 34 * 5)
    assert costs["hosted_usd"] == pytest.approx((0.1 * tokens[0] + 0.5 * tokens[1] + drawn) / 1e6, rel=0.01)


def test_the_table_pairs_each_variant_with_ltgc_seed_by_seed(world, capsys):
    ltgc = ablations.result([0, 1])
    first, second = ltgc.runs
    better = [first.model_copy(update={"all": first.all + 4}), second.model_copy(update={"all": second.all + 6})]
    bare = ltgc.model_copy(update={"generated": 5, "runs": better})
    results = {"unchanged": ltgc, "bare": bare, "one_round": ltgc}
    for variant, found in results.items():
        files.write_json(ablations.RESULTS / f"{variant}.json", found.model_dump())
    ablate.main()
    table = json.loads(ablations.TABLE.read_text())
    assert list(table) == ["ltgc", *VARIANTS]
    assert table["ltgc"]["less_ltgc"] is None
    assert table["unchanged"]["less_ltgc"]["all"] == {"mean": 0.0, "std": 0.0, "margin": 0.0}
    assert table["unchanged"]["accuracy"] == table["ltgc"]["accuracy"]
    assert table["bare"]["less_ltgc"]["all"] == {"mean": 5.0, "std": 1.41, "margin": 12.71}
    assert table["bare"]["generated"] == 5
    printed = capsys.readouterr().out
    assert "Each less ltgc" in printed
    ablations.print_table()
    assert capsys.readouterr().out == printed


def test_a_variant_of_another_methods_own_settings_trains_that_method_and_is_less_that_method() -> None:
    changes = {"train.own.ltgc_plus.interpolate": None}
    assert ablations.method_of(changes) == "ltgc_plus" and ablations.method_of({"train.lr": 1}) == "balancemix"

    def reached(method: str, accuracy: float) -> ablations.Result:
        scores = RunMetrics(**dict.fromkeys(METRICS, accuracy))
        return ablations.Result(method=method, generated=1, runs=[scores, scores])

    rows = ablations.rows(
        {"ltgc": reached("balancemix", 50), "ltgc_plus": reached("ltgc_plus", 70), "x": reached("ltgc_plus", 65)}
    )
    assert rows["ltgc"].less_ltgc is rows["ltgc_plus"].less_ltgc is None
    assert rows["x"].less_ltgc and rows["x"].less_ltgc["all"]["mean"] == -5


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ({"x": {"extend.maxrounds": 1}}, "x: params.yaml has no key 'extend.maxrounds'"),
        ({"x": {"nothing.at.all": 1}}, "params.yaml has no key 'nothing.at.all'"),
        ({"x": {"extend.max_rounds": "many"}}, r"params.yaml: extend\.max_rounds: "),
        ({"x": 3}, r"expected name: {key of params.yaml: value}"),
        ({"y": {}}, "no variant 'x'; there are y"),
    ],
)
def test_a_wrong_variant_is_named(tmp_path, monkeypatch, variants, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    files.write_jsonl(EXISTING, [])
    files.write_text(ablations.VARIANTS, yaml.safe_dump({"variants": variants}))
    with pytest.raises(LTGCError, match=says):
        ablate.main("x")


def test_the_variants_of_the_repository_change_keys_that_there_are(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for name, changes in (ablations.variants() | ablations.comparisons()).items():
        values = ablations.changed(name, changes)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        params.load(path=tmp_path / "params.yaml")
        assert values != ablations.changed(name, {})
