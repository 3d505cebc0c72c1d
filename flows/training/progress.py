"""How far training is, in units that mean something to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.reporting import NotedProgress, format_size

if TYPE_CHECKING:
    from models.config import TrainingConfig
    from models.runs import EpochMetrics

__all__ = ["TrainingProgress"]

#: What trainers call their progress, and what people read.
_TRAINERS_LABEL = "train"
LABEL = "training windows"


class TrainingProgress:
    """Turns a trainer's progress, in batches of all epochs, into windows with a note.

    The note names the epoch, the share of the last epoch's training time spent waiting for data, and the GPU memory
    that this process holds. Windows count by the batch size, so that a rate is there before the first epoch is
    over; the smaller batch at the end of a pass over a session counts as a whole one.

    Parameters
    ----------
    config : TrainingConfig
        What is trained.
    show : NotedProgress
        Where to.
    """

    def __init__(self, config: TrainingConfig, show: NotedProgress) -> None:
        self._config = config
        self._show = show
        self._data_wait_share: float | None = None
        self._n_windows = 0
        self._n_epochs = 0

    def __call__(self, label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:
        """Take in a report of the trainer, or of anything else."""
        if label != _TRAINERS_LABEL:
            self._show(label, n_done, n_total, n_bytes=n_bytes)
            return
        self._n_windows = n_done * self._config.batch_size
        # Rounded up: what is done last belongs to the epoch that it ends.
        epoch = -(-n_done * self._config.max_epochs // n_total) if n_total else 0
        note = [f"epoch {max(1, epoch)} of {self._config.max_epochs}"]
        if self._data_wait_share is not None:
            note.append(f"{self._data_wait_share:.0%} waiting for data")
        memory_bytes = _gpu_memory_bytes()
        if memory_bytes is not None:
            note.append(f"{format_size(memory_bytes)} GPU memory")
        self._show(LABEL, self._n_windows, n_total * self._config.batch_size, n_bytes=n_bytes, note=", ".join(note))

    def take_epoch(self, metrics: EpochMetrics) -> None:
        """Take in what an epoch came to."""
        self._data_wait_share = metrics.data_wait_share
        self._n_epochs = metrics.epoch

    def finish(self) -> None:
        """Say that training is over, usually before its last epoch."""
        if self._n_windows and self._n_epochs < self._config.max_epochs:
            note = f"over after epoch {self._n_epochs} of {self._config.max_epochs}"
            self._show(LABEL, self._n_windows, self._n_windows, note=note)


def _gpu_memory_bytes() -> int | None:
    """Return the GPU memory that torch has taken for this process; None where it has used no GPU."""
    from torch import cuda

    is_used: bool = cuda.is_initialized()  # type: ignore[no-untyped-call]
    return cuda.memory_reserved() if is_used else None
