"""Drawing on a Ray cluster of two machines: the bytes of one process, whatever dies."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers.local_drawing import SLUG, draw, lines, section
from helpers.random_diffusers import save_pipeline
from ray.cluster_utils import Cluster

from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.store import Store

FLOWERS = [(f"a rose with {n} petals", n) for n in range(24)]
DEAD_SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    """A head that computes nothing, and two machines of one CPU."""
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has at most 107 characters
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", sockets)  # Ray notes the address of the newest cluster in ray/ there
        (Path(sockets) / "ray").mkdir()
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": sockets, "_system_config": DEAD_SOON}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()
    shutil.rmtree(sockets, ignore_errors=True)


def actors_on(node: Any) -> list[psutil.Process]:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [p for p in raylet.children(recursive=True) if "".join(p.cmdline()[:1]).startswith("ray::Worker")]


def test_a_killed_process_and_a_killed_machine_lose_only_what_they_were_drawing(
    pipeline, tmp_path, machines, monkeypatch
):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = draw(section(pipeline), tmp_path / "one process", *FLOWERS)
        monkeypatch.setenv("LTGC_CACHE", f"{tmp_path / 'cluster'} pool")
        settings = section(pipeline, cluster=machines.address)
        first, second = machines.worker_nodes
        done: list[int] = []

        async def one(painter: DiffusersPainter, prompt: str, seed: int) -> Any:
            drawing = await painter.draw(SLUG, prompt, seed)
            done.append(seed)
            if len(done) == 6:
                (actor,) = actors_on(first)
                actor.kill()
            if len(done) == 14:
                await asyncio.to_thread(machines.remove_node, second, allow_graceful=False)
            return drawing

        async def all_of_them() -> list[Any]:
            async with asyncio.timeout(300):
                with Store(tmp_path / "cluster", [settings]) as store:
                    async with DiffusersPainter(settings, store) as painter:
                        return await asyncio.gather(*(one(painter, *flower) for flower in FLOWERS))

        assert asyncio.run(all_of_them()) == expected
        assert len(done) == len(lines(tmp_path / "cluster")) == len(FLOWERS)
    finally:
        torch.set_num_threads(threads)
