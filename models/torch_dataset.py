"""Training windows and whole trials as tensors, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn

import torch
from torch.utils.data import IterableDataset, get_worker_info

from models.inputs import InputPreparer, ModelInputs
from models.layouts import find_layout
from sensorium_data.errors import UsageError
from sensorium_data.sessions import find_sessions
from sensorium_data.statistics import open_normalizer
from sensorium_data.store import StoreLike, expand_tiers, open_store
from sensorium_data.windows import TrialReader, WindowBatches, WindowLoader

__all__ = ["WindowDataset", "iter_trials"]


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


def iter_trials(
    store: StoreLike,
    sessions: Iterable[str],
    tiers: Iterable[str],
    *,
    normalization: str = "competition",
    layout: str = "starter-kit",
    device: str | torch.device = "cpu",
) -> Iterator[ModelInputs]:
    """Yield whole trials as tensors, a batch of one trial each: what a trained model predicts.

    Parameters
    ----------
    store : Store or path
        The session stores, or the path or URL of their root.
    sessions : iterable of str
        Aliases, full names, ``new``, ``old`` or ``all``.
    tiers : iterable of str
        E.g. ``oracle``; ``test`` for the four test tiers; ``all``.
    normalization : str
        What the model was trained with.
    layout : str
        How videos are composed, one of :data:`models.layouts.INPUT_LAYOUTS`.
    device : str or torch.device
        Where to.

    Yields
    ------
    ModelInputs
        Of valid trials, session by session. ``responses`` is empty.

    Raises
    ------
    UnknownNameError
        If a session, a tier, the normalization or the layout does not exist.
    StoreError
        If a session cannot be opened, or a trial lacks behavior or pupil center.
    UsageError
        If a session has no such trial.

    Examples
    --------
    >>> for trial in iter_trials("demo/store", ["F"], ["oracle"]):                        # doctest: +SKIP
    ...     arrays[trial.session][trial.trials[0]] = model(trial.videos)[0].numpy()
    """
    opened = open_store(store)
    chosen = find_sessions(sessions)
    preparer = InputPreparer(find_layout(layout), torch.device(device))
    expanded = expand_tiers(list(tiers), opened, chosen)
    for session in chosen:
        reader = TrialReader(opened, [session.name], reads_responses=False, cache_bytes=0)
        loader = WindowLoader(reader, {session.name: open_normalizer(normalization, opened, session.name)})
        for batch in loader.iter_trials(session.name, expanded):
            yield preparer.prepare(batch)


def _no_workers(found: str) -> UsageError:
    return UsageError(
        "batches are prepared by threads, not by worker processes",
        found=found,
        expected="none",
        remedy="give DataLoader num_workers=0, its default",
    )
