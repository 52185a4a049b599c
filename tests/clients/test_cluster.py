"""Drawing on several devices of this machine, and the address of a cluster."""

import pytest
import torch
from helpers.local_drawing import draw, section
from helpers.random_diffusers import save_pipeline

from ltgc.clients import pipelines
from ltgc.pipeline.errors import LTGCError

FLOWERS = [(f"a rose with {n} petals", n) for n in range(8)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


def test_two_devices_draw_the_bytes_of_one(pipeline, tmp_path, monkeypatch):
    settings = section(pipeline)
    one = draw(settings, tmp_path / "one", *FLOWERS)
    monkeypatch.setattr(pipelines, "devices", lambda device: [torch.device("cpu")] * 2)
    assert draw(settings, tmp_path / "two", *FLOWERS) == one


def test_an_address_without_a_cluster_is_one_line_that_says_how_to_start_one(pipeline, tmp_path):
    message = "no Ray cluster at 127.0.0.1:1 .* start one with `ray start --head`"
    with pytest.raises(LTGCError, match=message) as error:
        draw(section(pipeline, cluster="127.0.0.1:1"), tmp_path, *FLOWERS[:1])
    assert "\n" not in str(error.value)
