"""Where a stage computes: accelerate's view of its devices and processes, and how the processes share work.

One process needs no launcher. Several, on one machine or more, each run the whole stage:
accelerate launch --num_processes 2 -m stages.train
"""

import accelerate
import torch
from accelerate import Accelerator
from torch import Tensor

from ltgc.clip.device import pick_device
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import TrainSettings

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # in accelerate's words


def accelerator(device: str, precision: str = "fp32", accumulation: int = 1, compile: bool = False) -> Accelerator:
    """accelerate's view of this process. It keeps one state a process: asked again, the devices are the same.

    Raises LTGCError for a device that is not there and for a precision that it cannot compute in.
    """
    on_cpu = pick_device(device).type == "cpu"
    if on_cpu and precision == "fp16":
        raise LTGCError("train.precision: fp16 needs a GPU; set it to bf16 or fp32 in params.yaml")
    try:
        return Accelerator(
            cpu=on_cpu,
            mixed_precision=PRECISIONS[precision],
            gradient_accumulation_steps=accumulation,
            dynamo_backend="inductor" if compile else "no",
        )
    except ValueError as error:  # a GPU without bfloat16
        raise LTGCError(f"train.precision: {precision}: {error}") from error


def for_training(settings: TrainSettings) -> Accelerator:
    return accelerator(settings.device, settings.precision, settings.accumulation, settings.compile)


def share(count: int) -> Tensor:
    """Which of `count` rows this process computes, int64: a run of them, as long as the others' or one longer."""
    rank, processes = _rank()
    return torch.arange(count).tensor_split(processes)[rank]


def gather(rows: Tensor, count: int) -> Tensor:
    """All `count` rows in order, on every process, of the rows (n, ...) that each computed for its `share`."""
    _, processes = _rank()
    if processes == 1:
        return rows
    sizes = [len(indices) for indices in torch.arange(count).tensor_split(processes)]
    padding = rows.new_zeros(sizes[0] - len(rows), *rows.shape[1:])  # the first share is as long as any
    shares = accelerate.utils.gather(torch.cat([rows, padding])).split(sizes[0])
    return torch.cat([share[:size] for share, size in zip(shares, sizes, strict=True)])


def _rank() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
