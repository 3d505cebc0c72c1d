"""Training windows for PyTorch's own tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import torch
from torch.utils.data import IterableDataset, get_worker_info

from models.inputs import InputPreparer, ModelInputs
from models.layouts import find_layout
from sensorium_data.errors import UsageError
from sensorium_data.windows import WindowBatches

__all__ = ["WindowDataset"]


class WindowDataset(IterableDataset[ModelInputs]):
    """Epochs of batches as tensors on the host, the next epoch each time it is iterated over.

    Batches come whole and are prepared ahead by threads: give it to a ``DataLoader`` with ``batch_size=None`` and
    without workers, or iterate over it directly.

    Parameters
    ----------
    batches : WindowBatches
        What :func:`sensorium_data.window_batches` returns.
    layout : str
        How videos are composed, one of :data:`models.layouts.INPUT_LAYOUTS`.

    Raises
    ------
    UnknownNameError
        If there is no such layout.

    Examples
    --------
    >>> dataset = WindowDataset(sensorium_data.window_batches("demo/store", seed=42))     # doctest: +SKIP
    >>> for batch in DataLoader(dataset, batch_size=None):                                # doctest: +SKIP
    ...     loss = criterion(model(batch.videos, batch.pupil_center), batch.responses)
    """

    def __init__(self, batches: WindowBatches, layout: str = "starter-kit") -> None:
        self._batches = batches
        self._preparer = InputPreparer(find_layout(layout), torch.device("cpu"))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, from 0."""
        self._batches.set_epoch(epoch)

    def __reduce__(self) -> NoReturn:
        # Worker processes that are spawned get a pickled dataset.
        raise _no_workers("worker processes")

    def __iter__(self) -> Iterator[ModelInputs]:
        """Yield one epoch's batches.

        Raises
        ------
        UsageError
            In a worker process: threads read ahead already, and Zarr and dask lock up in forked processes.
        """
        if get_worker_info() is not None:
            raise _no_workers(f"{get_worker_info().num_workers} workers")
        return map(self._preparer.prepare, self._batches)


def _no_workers(found: str) -> UsageError:
    return UsageError(
        "batches are prepared by threads, not by worker processes",
        found=found,
        expected="none",
        remedy="give DataLoader num_workers=0, its default",
    )
