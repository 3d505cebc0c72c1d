"""What is measured in every epoch, and where it is written: a JSON line and TensorBoard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from models.runs.files import RESTORE, UNFINISHED_RUN
from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import describe_damage, open_appending, parse_json, require_own_folder

__all__ = ["EpochMetrics", "MetricsLog", "read_metrics"]


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch of training, in numbers.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        Poisson loss per neuron and frame, over the epoch's batches; the weights change meanwhile.
    regularizer : float
        Mean over the epoch's batches, as added to the scaled loss.
    validation_loss : float
        Poisson loss per neuron and frame on whole validation trials, on the recipe's scale.
    correlation : float
        Single-trial correlation on the validation trials in the competition's units, mean over the neurons of all
        sessions.
    correlations : mapping of str to float
        The same, mean over each session's neurons.
    learning_rate : float
        That the epoch's last step was made with.
    improved : bool
        Whether the weights were the best so far.
    duration_s : float
        Training and validation together.
    windows_per_s : float
        Windows trained on a second, validation left out.
    data_wait_share : float
        Share of the training time, 0 to 1, spent waiting for batches.
    scores : mapping of str to float
        By the names of :mod:`models.training.scores`; empty in runs of before they were computed.
    gpu_memory_bytes : int
        The most that tensors took on the GPU; 0 on a CPU.
    n_skipped_steps : int
        Steps that 16-bit gradients were too large for.
    """

    epoch: int
    train_loss: float
    regularizer: float
    validation_loss: float
    correlation: float
    correlations: Mapping[str, float] = field(hash=False)
    learning_rate: float
    improved: bool
    duration_s: float
    windows_per_s: float
    data_wait_share: float
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    gpu_memory_bytes: int = 0
    n_skipped_steps: int = 0

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


class MetricsLog:
    """Writes every epoch to ``metrics.jsonl`` and to TensorBoard's event files.

    Both are begun anew with the epochs that are known already: an interrupted run may have written more than it goes
    on from.

    Parameters
    ----------
    folder : Path
        The run's folder; event files go to its ``tensorboard`` folder.
    epochs : sequence of EpochMetrics
        What a run goes on from.
    """

    def __init__(self, folder: Path, epochs: Sequence[EpochMetrics] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.jsonl"
        events = folder / "tensorboard"
        self._path.unlink(missing_ok=True)
        require_own_folder(events)
        for file in events.glob("*"):
            if UNFINISHED_RUN.makes(f"{events.name}/{file.name}"):
                file.unlink()
        self._events = SummaryWriter(log_dir=str(events))
        for epoch in epochs:
            self.append(epoch)

    def append(self, metrics: EpochMetrics) -> None:
        """Write one epoch; it is on disk when this returns."""
        with open_appending(self._path) as file:
            file.write(metrics.to_json() + "\n")
        for name in ("train_loss", "validation_loss", "regularizer"):
            self._events.add_scalar(f"loss/{name}", getattr(metrics, name), metrics.epoch)
        self._events.add_scalar("correlation/all neurons", metrics.correlation, metrics.epoch)
        for session, correlation in metrics.correlations.items():
            self._events.add_scalar(f"correlation/{session}", correlation, metrics.epoch)
        for name, score in metrics.scores.items():
            self._events.add_scalar(f"score/{name}", score, metrics.epoch)
        for name in ("learning_rate", "windows_per_s", "data_wait_share", "duration_s", "gpu_memory_bytes"):
            self._events.add_scalar(f"training/{name}", getattr(metrics, name), metrics.epoch)
        self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()


def read_metrics(path: Path) -> list[EpochMetrics]:
    """Return the epochs that a ``metrics.jsonl`` holds.

    Raises
    ------
    RunError
        If the file is missing or a line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError("the run's metrics cannot be read", path=path, found=describe_os_error(error)) from error
    epochs = []
    for number, line in enumerate(lines, start=1):
        try:
            epochs.append(EpochMetrics(**parse_json(line)))
        except (ValueError, TypeError) as error:
            raise RunError(
                "a line of the run's metrics is damaged",
                path=f"{path}:{number}",
                found=describe_damage(error),
                remedy=RESTORE,
            ) from error
    return epochs
