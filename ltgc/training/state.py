"""What changes in a training run from step to step, and how a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ltgc.pipeline.settings.training import TrainSettings
from ltgc.training import checkpoint
from ltgc.training.batches import Batch

ADAMW = ["step", "exp_avg", "exp_avg_sq"]  # what it keeps of each weight

Row = dict[str, Any]  # of a training curve: step, loss (mean since the last row), lr, val_accuracy


@dataclass
class State:
    trained: nn.Module  # a classifier, or a network around one
    network: nn.Module  # the same as accelerate calls it
    optimizer: Optimizer
    accelerator: Accelerator
    losses: Tensor  # (steps,) float32 on the device: of each step, this process's share of the loss
    curve: list[Row] = field(default_factory=list)
    step: int = 0  # how many steps have been taken

    def take_step(
        self,
        batches: Iterator[Batch],
        objective: Callable[[nn.Module, Batch], Tensor],
        lr: float,
        settings: TrainSettings,
    ) -> None:
        """One optimisation step, on this process's shares of a batch: the next train.accumulation of `batches`."""
        shares = self.accelerator.num_processes * settings.accumulation
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for _ in range(settings.accumulation):
            batch = next(batches)
            size = len(batch.pixels)
            with self.accelerator.accumulate(self.network):
                value = objective(self.network, batch)
                # accelerate takes the mean over the shares; shares of unequal sizes count by their sizes.
                self.accelerator.backward(value * (size * shares / settings.batch_size))
            self.losses[self.step] += value.detach() * (size / settings.batch_size)
        if settings.grad_clip:
            learning = [p for group in self.optimizer.param_groups for p in group["params"]]
            self.accelerator.clip_grad_norm_(learning, settings.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def row(self, lr: float) -> Row:
        """The next row of the training curve, without validation accuracy."""
        since = self.curve[-1]["step"] if self.curve else 0
        mean = self.accelerator.reduce(self.losses[since : self.step]).mean().item()
        return {"step": self.step, "loss": float(f"{mean:.6g}"), "lr": float(f"{lr:.6g}"), "val_accuracy": None}

    def save(self, path: Path, key: str) -> None:
        losses = self.accelerator.reduce(self.losses)
        if not self.accelerator.is_main_process:
            return
        tensors = {"losses": losses} | {f"value {name}": value for name, value in self._changing().items()}
        for name, parameter in self._learning().items():
            tensors |= {f"{slot} {name}": value for slot, value in self.optimizer.state[parameter].items()}
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        checkpoint.write(path, key, tensors, {"step": self.step, "curve": self.curve, "scaler": scaler})

    @torch.no_grad()
    def restore(self, path: Path, key: str) -> None:
        """Put everything back that `save` kept of the run `key`; nothing where there is no checkpoint of it."""
        found = checkpoint.read(path, key)
        if found is None:
            return
        tensors, kept = found
        if self.accelerator.is_main_process:  # the losses of all processes are summed
            self.losses.copy_(tensors["losses"])
        for name, value in self._changing().items():
            value.copy_(tensors[f"value {name}"])
        for name, parameter in self._learning().items():
            self.optimizer.state[parameter] = {s: tensors[f"{s} {name}"].to(parameter.device) for s in ADAMW}
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(kept["scaler"])
        self.step, self.curve = kept["step"], kept["curve"]

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.trained.named_parameters() if p.requires_grad}

    def _changing(self) -> dict[str, Tensor]:
        """The weights that learn, and buffers."""
        frozen = {name for name, p in self.trained.named_parameters() if not p.requires_grad}
        return {name: value for name, value in self.trained.state_dict().items() if name not in frozen}
