"""The processes that train one model together, as torchrun starts them: one for each device."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

_PATIENCE = timedelta(hours=2)  # the others wait while the first process validates


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        number: This one's, from 0. Only the first writes files and shows progress.
        count: How many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first process."""
        return self.number == 0

    def mean_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes.

        A weight may have a gradient in some processes only, as where a method did nothing for some images: there it
        counts as 0. One that has none anywhere gets none, so that the optimiser leaves it alone.
        """
        if self.count == 1 or not weights:
            return
        device = weights[0].device
        used = torch.tensor([float(weight.grad is not None) for weight in weights], device=device)
        dist.all_reduce(used)
        somewhere = [weight for weight, count in zip(weights, used.tolist(), strict=True) if count]
        for weight in somewhere:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in somewhere if weight.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.count == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.count

    def same(self, model: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        if self.count > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    def from_first(self, value: float, device: torch.device) -> float:
        """The first process's number, in all of them."""
        if self.count == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(number, 0)
        return float(number)


def join(device: torch.device) -> Processes:
    """Join the processes that torchrun started together with this one; without torchrun this is the only one.

    Args:
        device: What this process trains on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
