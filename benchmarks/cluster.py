"""Drawing on a Ray cluster: images/s of two one-thread actors against one one-thread process.

    python benchmarks/cluster.py        # about 5 minutes on two cores; nothing else should run meanwhile

One run alternates between the two. Both go the whole way (`t2i.ours`): a graph an image, batches, PNG, store.
The cluster is two machines of one CPU that Ray simulates on this one. The actors, the process that asks them and
Ray itself share two cores, so 2.0 is out of reach. The goal is 1.8.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import t2i
import torch
from ray.cluster_utils import Cluster
from rich.console import Console

from ltgc.clients.diffusers_painter import DiffusersPainter
from ltgc.clients.store import Store

IMAGES = 64  # a turn
ROUNDS = 3


async def measure(folder: Path, address: str) -> dict[str, list[float]]:
    """Images a second of each turn."""
    t2i.save_pipeline(folder / "pipeline")
    rates: dict[str, list[float]] = {"one process": [], "two actors": []}
    async with AsyncExitStack() as stack:
        painters = {}
        for name, cluster in zip(rates, (None, address), strict=True):
            settings = t2i.section(str(folder / "pipeline"), cluster=cluster)
            store = stack.enter_context(Store(folder / name, [settings]))
            painters[name] = await stack.enter_async_context(DiffusersPainter(settings, store))
        for turn in range(ROUNDS + 1):
            for number, (name, painter) in enumerate(painters.items()):
                start = perf_counter()
                await t2i.ours(painter, 2 * turn + number, IMAGES)  # other seeds: both read the same pool
                rates[name].append(IMAGES / (perf_counter() - start))
    return {name: turns[1:] for name, turns in rates.items()}  # the first one loads and warms up


def main() -> None:
    torch.set_num_threads(1)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has at most 107 characters
    os.environ["RAY_TMPDIR"] = sockets  # Ray notes the address of the newest cluster in ray/ there
    (Path(sockets) / "ray").mkdir()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": sockets}
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        with tempfile.TemporaryDirectory() as name:
            os.environ["LTGC_CACHE"] = f"{name}/pool"
            rates = asyncio.run(measure(Path(name), cluster.address))
    finally:
        cluster.shutdown()
        shutil.rmtree(sockets, ignore_errors=True)
    ratios = [two / one for one, two in zip(rates["one process"], rates["two actors"], strict=True)]
    console = Console()
    for name, turns in rates.items():
        console.print(f"{name}: {', '.join(f'{rate:.2f}' for rate in turns)} images/s")
    console.print(
        f"two actors / one process: best {max(ratios):.2f} (turns: {', '.join(f'{r:.2f}' for r in ratios)}); load "
        f"average {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
