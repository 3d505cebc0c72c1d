"""Statistics over trials, frame by frame, of more data than memory holds."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sensorium_data.schema import STATISTICS

__all__ = ["TrialStack", "summarize_trials"]

_BLOCK_SIZE_BYTES = 64 << 20

#: Something like the built-in ``map``.
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


class TrialStack:
    """One modality of all trials, as float32 in a scratch file: (trial, feature, time).

    Trials may be written from many threads, each once.

    Parameters
    ----------
    folder : Path
        Holds the scratch file, which has no name: it is gone when it is closed, or when its process is killed.
    n_trials, n_features, n_frames : int
        Its shape.
    """

    def __init__(self, folder: Path, n_trials: int, n_features: int, n_frames: int) -> None:
        self._shape = (n_trials, n_features, n_frames)
        self._lock = threading.Lock()
        # Written as a file, not through a memory map: that one kills the process where the disk is full.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open until close())

    def write(self, position: int, values: np.ndarray) -> None:
        """Store one trial: (feature, time)."""
        data = np.ascontiguousarray(values, np.float32)
        with self._lock:
            self._file.seek(position * data.nbytes)
            self._file.write(data.data)

    def summarize(self, run: Map) -> dict[str, np.ndarray]:
        """Return each statistic over trials: (feature, time) float64 by its name.

        Parameters
        ----------
        run : callable
            Like ``map``; one that uses threads makes it faster.
        """
        self._file.flush()
        values = np.memmap(self._file, np.float32, mode="r", shape=self._shape)
        n_trials, n_features, n_frames = self._shape
        step = max(1, _BLOCK_SIZE_BYTES // (4 * n_trials * n_frames))
        blocks = [slice(start, start + step) for start in range(0, n_features, step)]
        parts = list(run(lambda block: summarize_trials(values[:, block]), blocks))
        return {name: np.concatenate([part[name] for part in parts]) for name in STATISTICS}

    def close(self) -> None:
        """Close the scratch file, which deletes it."""
        self._file.close()


def summarize_trials(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean, std (of the population), median, min and max over trials, leaving NaN out.

    Parameters
    ----------
    values : np.ndarray
        (trial, feature, time), NaN where a trial has no value.

    Returns
    -------
    dict of str to np.ndarray
        (feature, time) float64; NaN where no trial has a value.
    """
    summary = {name: np.full(values.shape[1:], np.nan) for name in STATISTICS}
    if not len(values):
        return summary
    # Sorting puts NaN last: of a place with n values, the first n.
    ordered = np.sort(np.ascontiguousarray(np.moveaxis(values, 0, -1)), axis=-1)
    counts = np.isfinite(ordered).sum(axis=-1)
    for count in np.unique(counts[counts > 0]):
        is_here = counts == count
        present = ordered[is_here][:, :count]
        mean = present.mean(axis=-1, dtype=np.float64)
        deviation = present - mean[:, None]
        summary["mean"][is_here] = mean
        summary["std"][is_here] = np.sqrt(np.einsum("pt,pt->p", deviation, deviation) / count)
        middle = present[:, [(count - 1) // 2, count // 2]]
        summary["median"][is_here] = middle.mean(axis=-1, dtype=np.float64)
        summary["min"][is_here] = present[:, 0]
        summary["max"][is_here] = present[:, -1]
    return summary
