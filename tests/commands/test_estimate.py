"""The bill before anything is spent."""

from pathlib import Path

import pytest
import yaml
from helpers import finished_pipeline

from ltgc.commands import estimate, gpu_hours
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.errors import LTGCError

SECTIONS = ("servers", "llm", "vision", "t2i", "extend", "templates", "filter", "ask", "prices")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    finished_pipeline.build(tmp_path)
    return tmp_path


def costs(**changes: dict):
    values = yaml.safe_load(Path("params.yaml").read_text())
    for section, change in changes.items():
        values[section] |= change
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return estimate.estimate(params.load(*SECTIONS), files.read_csv(CLASSES, ClassRecord))


def test_the_estimate_follows_from_the_class_counts_and_the_target(world):
    bill = costs(extend={"target": 20})  # classes of 12, 6 and 4 images are filled up: 8 + 14 + 16
    assert bill["describe"].calls == pytest.approx(22 * estimate.REPLIES_AN_IMAGE)
    assert bill["templates"].calls == len(finished_pipeline.NAMES)
    descriptions = 38 * estimate.KEPT
    assert bill["generate"].images == pytest.approx(descriptions * (1 + estimate.REFINEMENTS))
    more = costs(extend={"target": 40})
    assert more["generate"].images > 2 * bill["generate"].images
    assert more["extend"].prompt_tokens > bill["extend"].prompt_tokens


def test_the_scorer_ask_costs_a_call_to_the_vision_model_for_each_drawing(world):
    without = costs()["generate"]
    asking = costs(filter={"scorer": "ask", "threshold": 1.0}, vision={"model": "gpt-6-luna"})["generate"]
    assert asking.images == without.images and without.usd == 0
    assert asking.calls - without.calls == pytest.approx(without.images * estimate.REPLIES_AN_IMAGE)
    assert asking.prompt_tokens - without.prompt_tokens > 1229 * without.images  # the drawings are looked at
    assert asking.usd and asking.usd > 0


def test_asking_for_the_class_costs_the_list_of_all_classes_with_each_image(world):
    few = costs(ask={"max_images": 10})["ask"]
    names = sum(len(name) + 1 for name in finished_pipeline.NAMES)
    assert few.calls == 10
    assert few.prompt_tokens > 10 * names / estimate.CHARACTERS_A_TOKEN
    assert costs(ask={"max_images": 1_000_000})["ask"].calls == 5 * len(
        finished_pipeline.NAMES
    )  # no more than there are


def test_money_is_the_price_of_each_stages_models(world):
    bill = costs(vision={"model": "gpt-6-luna"})
    asked = bill["describe"]
    assert asked.usd == pytest.approx((asked.prompt_tokens * 0.1 + asked.completion_tokens * 0.5) / 1e6)
    assert asked.prompt_tokens > 1229 * asked.calls  # the images count
    assert bill["extend"].usd == 0
    assert costs(t2i={"model": "gemini-3.1-flash-lite-image"})["generate"].usd == pytest.approx(
        bill["generate"].images * 0.0336
    )


def test_without_a_tail_only_templates_are_asked_for_and_without_them_nothing(world):
    bill = costs(extend={"target": 0}, ask={"max_images": 0})
    assert [name for name, cost in bill.items() if cost.calls or cost.images] == ["templates"]
    assert not any(cost.calls for cost in costs(templates={"source": "class_name"}).values())


def test_the_command_prints_the_bill_and_asks_nobody(world, capsys):
    costs(llm={"base_url": "http://127.0.0.1:9/v1", "model": "a-model-without-a-price"})
    before = sorted(world.rglob("*"))
    estimate.main()
    printed = capsys.readouterr().out
    assert "no price" in printed and "add it to `prices`" in printed
    assert sorted(world.rglob("*")) == before


def test_where_prepare_has_not_run_the_command_names_that_stage_alone(world):
    CLASSES.unlink()
    with pytest.raises(LTGCError, match=r"^data/classes\.csv: not there; run `dvc repro prepare`"):
        estimate.main()


def test_size_and_quality_thinking_and_flex_are_in_the_bill(world):
    low, high = (
        costs(t2i={"model": "gpt-image-2.5-flare", "size": "1024x1024", "quality": quality})["generate"]
        for quality in ("low", "high")
    )
    assert low.usd / low.images == pytest.approx(196 * 30e-6, rel=0.05) and high.usd > 8 * low.usd
    thinks = costs(llm={"model": "gpt-6-luna"})["extend"]
    plain = costs(llm={"model": "gpt-6-luna", "reasoning_effort": "none"})["extend"]
    assert thinks.reasoning_tokens == thinks.completion_tokens - plain.completion_tokens == 300 * plain.calls
    flex = costs(llm={"model": "gpt-6-luna", "reasoning_effort": "none", "service_tier": "flex", "timeout": 900})
    assert flex["extend"].usd == pytest.approx(plain.usd / 2)


def test_gpu_hours_follow_from_a_rate_that_is_given_or_measured(world, capsys):
    estimate.main()
    assert "GPU-hours" not in capsys.readouterr().out  # a server draws, and nobody knows how fast a GPU trains
    estimate.main(training_rate=0.5)
    assert "Training: " in (printed := capsys.readouterr().out) and "GPU-hours of drawing" not in printed

    bill = costs(t2i={"backend": "diffusers"}, train={"own": {"clip_finetune": {"steps_factor": 2.0}}})
    settings = params.load("train", "methods", "seeds")
    trained = [method for method in settings.methods if not method.startswith("clip_zero_shot")]
    runs = (len(trained) + ("clip_finetune" in trained)) * len(settings.seeds)  # it takes twice the steps
    images = runs * settings.train.steps * settings.train.batch_size

    estimate.main(drawing_rate=0.01)
    printed = capsys.readouterr().out
    assert f"Drawing: {bill['generate'].images / 36:.1f} GPU-hours" in printed
    assert "GPU-hours of training: run `ltgc bench --gpu`, or give --training-rate." in printed

    files.write_json(gpu_hours.BENCH, {"device": "x", "training": {"images_per_second": 0.5, "of": "a slow GPU"}})
    estimate.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"({images:,} images trained at 0.5 a second" in printed
    assert "a slow GPU" in printed and "GPU-hours of drawing: run" in printed
