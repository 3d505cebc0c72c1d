"""The loader for who trains with PyTorch's own tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import torch
from torch.utils.data import IterableDataset, get_worker_info

from models.inputs import InputPreparer, ModelInputs
from models.layouts import InputLayout
from sensorium_data.errors import UsageError
from sensorium_data.windows import EpochPlan, WindowLoader

__all__ = ["WindowDataset"]


class WindowDataset(IterableDataset[tuple[ModelInputs, ...]]):
    """Epoch after epoch of batches on the host, one epoch each time it is iterated over.

    Batches come whole and are prepared ahead by threads: give it to a ``DataLoader`` with ``batch_size=None`` and
    without workers, or iterate over it directly.

    Parameters
    ----------
    loader : WindowLoader
        With normalizers, or batches hold what the store does.
    plan : callable
        Takes an epoch, from 0, and returns its plan.
    layout : InputLayout
        How videos are composed.
    first_epoch : int
        The epoch of the first iteration.

    Examples
    --------
    >>> dataset = WindowDataset(                                                        # doctest: +SKIP
    ...     loader,
    ...     lambda epoch: plan_in_turn(trials, Windows(80), batch_size=8, seed=42, epoch=epoch),
    ...     find_layout("starter-kit"),
    ... )
    >>> for (part,) in DataLoader(dataset, batch_size=None):                            # doctest: +SKIP
    ...     loss = criterion(model(part.videos, part.pupil_center), part.responses)
    """

    def __init__(
        self,
        loader: WindowLoader,
        plan: Callable[[int], EpochPlan],
        layout: InputLayout,
        *,
        first_epoch: int = 0,
    ) -> None:
        self._loader = loader
        self._plan = plan
        self._preparer = InputPreparer(layout, torch.device("cpu"))
        self.epoch = first_epoch

    def __iter__(self) -> Iterator[tuple[ModelInputs, ...]]:
        """Yield one epoch's batches, each as its parts, and count the epoch.

        Raises
        ------
        UsageError
            In a worker process: threads read ahead already, and Zarr and dask lock up in forked processes.
        """
        if get_worker_info() is not None:
            raise UsageError(
                "batches are prepared by threads, not by worker processes",
                found=f"{get_worker_info().num_workers} workers",
                expected="none",
                remedy="give DataLoader num_workers=0, its default",
            )
        epoch = self.epoch
        self.epoch += 1
        with closing(self._loader.iter_batches(self._plan(epoch))) as batches:
            for parts in batches:
                yield tuple(self._preparer.prepare(part) for part in parts)
