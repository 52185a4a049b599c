"""One text-to-image pipeline for each GPU of this machine, behind one call from many threads."""

from collections.abc import Sequence
from queue import SimpleQueue

import torch

from ltgc.clients.diffusers_pipeline import Painted, Pipeline, Wanted
from ltgc.clip.device import pick_device
from ltgc.pipeline.settings.servers import T2ISettings


class LocalPipelines:
    """Calls from `count` threads at once are drawn on as many devices."""

    def __init__(self, section: T2ISettings) -> None:
        """Load them. Raises LTGCError as Pipeline does."""
        self._free: SimpleQueue[Pipeline] = SimpleQueue()
        # All before the first of them draws: while weights are loaded, torch has other defaults in every thread.
        pipelines = [Pipeline(section, device) for device in devices(section.diffusers.device)]
        for pipeline in pipelines:
            self._free.put(pipeline)
        self.count = len(pipelines)

    def __call__(self, items: Sequence[Wanted]) -> list[Painted]:
        pipeline = self._free.get()
        try:
            return pipeline(items)
        finally:
            self._free.put(pipeline)

    def close(self) -> None:
        """Nothing outlives the process; the memory is free when nobody refers to them."""


def devices(device: str) -> list[torch.device]:
    """Every GPU of this machine, or the CPU. Raises LTGCError when cuda is asked for and absent."""
    if pick_device(device).type == "cpu":
        return [torch.device("cpu")]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
