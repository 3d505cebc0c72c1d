"""Several processes that train one model, each on its rows of every batch.

The hooks of ``DistributedDataParallel`` are not used: sessions take turns, so that most readouts have no gradient
after a batch, for which it would wait. Gradients are added up once a step instead, when all of its batches are through.

What differs from one process, beside the rounding of sums: batch norm normalizes each rank's rows by their own
statistics. The running ones are averaged over ranks after each step, so that all ranks hold the same model at any time.
Readouts that draw places at random draw others on each rank.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from sensorium_data.errors import UsageError

__all__ = ["Ranks", "open_ranks"]

_Object = TypeVar("_Object")


class Ranks:
    """This process among all that train one model; alone by default.

    Parameters
    ----------
    rank : int
        From 0. Rank 0 alone writes.
    n_ranks : int
        How many there are; with several, torch's default process group is theirs.
    """

    def __init__(self, rank: int = 0, n_ranks: int = 1) -> None:
        self.rank = rank
        self.n_ranks = n_ranks

    @property
    def is_first(self) -> bool:
        """Whether this process writes, and counts what counts once."""
        return self.rank == 0

    def own_rows(self, n_rows: int) -> slice:
        """Return which rows of a batch are this rank's: every ``n_ranks``-th."""
        return slice(self.rank, n_rows, self.n_ranks)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor added up over ranks, without a gradient."""
        if self.n_ranks == 1:
            return tensor.detach()
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank."""
        return any(self.gather(flag))

    def gather(self, value: _Object) -> list[_Object]:
        """Return every rank's value, in the order of ranks."""
        if self.n_ranks == 1:
            return [value]
        values: list[_Object] = [value] * self.n_ranks
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: _Object) -> _Object:
        """Return rank 0's value."""
        if self.n_ranks == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add every parameter's gradient up over ranks, in place.

        A parameter without a gradient on any rank keeps none: the optimizer leaves it alone, as it does in one process.
        """
        if self.n_ranks == 1:
            return
        parameters = list(parameters)
        used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        used = used.to(parameters[0].device)
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
        chosen = [parameter for parameter, is_used in zip(parameters, used.tolist(), strict=True) if is_used]
        if not chosen:
            return
        # One message for all of them.
        flat = torch.cat(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().to(torch.float32) for p in chosen]
        )
        dist.all_reduce(flat)
        for parameter, gradient in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype).clone()

    @torch.no_grad()
    def average_buffers(self, model: nn.Module) -> None:
        """Make the running statistics of batch norm their mean over ranks."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.n_ranks == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= self.n_ranks
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


@contextmanager
def open_ranks(n_devices: int, device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun has started, and leave them in the end.

    Torch can join them once in a process. Who trains several runs in one calls ``init_process_group`` first: a group
    that is there is used, and left as it is.

    Parameters
    ----------
    n_devices : int
        How many there should be; with 1, there is nobody to join.
    device : torch.device
        Of which kind; each rank gets a GPU of its own.

    Yields
    ------
    (Ranks, torch.device)
        This process, and its device.

    Raises
    ------
    UsageError
        If torchrun has started another number of processes, or if there are fewer GPUs.
    """
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if n_ranks != n_devices:
        raise UsageError(
            "the number of devices is not that of processes",
            found=f"n_devices {n_devices}, processes {n_ranks}",
            remedy=f"start it by `torchrun --nproc-per-node {n_devices} --no-python sensorium train …`"
            if n_devices > n_ranks
            else f"set n_devices to {n_ranks}",
        )
    if n_devices == 1:
        yield Ranks(), device
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                "fewer GPUs than processes", found=f"{torch.cuda.device_count()} GPUs", expected=f"{local_rank + 1}"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    is_own = not dist.is_initialized()
    if is_own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        if is_own:
            dist.destroy_process_group()
