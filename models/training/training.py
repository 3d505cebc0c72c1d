"""From a preset and session stores to a finished run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.config import TrainingConfig
from models.devices import choose_device, repeatable
from models.inputs import open_normalizers
from models.training.curves import draw_curves, write_summary
from models.training.metrics import EpochMetrics, MetricsLog
from models.training.run import describe_data, identify_run, load_run, run_name
from models.training.run_folder import publish_run
from models.training.trainer import Trainer
from sensorium_data.errors import RunError, UsageError
from sensorium_data.loader import WindowLoader
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import find_sessions
from sensorium_data.store import stored_sessions
from sensorium_data.trial_reader import TrialReader

__all__ = ["TrainingReport", "train"]


@dataclass(frozen=True)
class TrainingReport:
    """What :func:`train` did.

    Attributes
    ----------
    run : str
        Path of the run's folder.
    status : str
        ``"trained"``, or ``"already done"`` if the run existed.
    sessions : tuple of str
        Full names.
    n_epochs : int
        Epochs trained.
    best_epoch : int
        The epoch whose weights were kept; 0 if none beat the untrained model.
    best_correlation : float
        Their single-trial correlation on the oracle tier, over the neurons of all sessions.
    duration_s : float
        Time that training took, now or when it was done.
    """

    run: str
    status: str
    sessions: tuple[str, ...]
    n_epochs: int
    best_epoch: int
    best_correlation: float
    duration_s: float


def train(
    config: TrainingConfig,
    store: str,
    sessions: Sequence[str] | None,
    runs: str | Path,
    *,
    progress: Progress = ignore_progress,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> TrainingReport:
    """Train a model and leave a run folder, ``<runs>/<preset>-<digest>``.

    A run is known by its recipe and the content of its data: if it exists, nothing is done. While it is trained
    its folder is called ``<name>.partial``; a run that was interrupted starts over.

    Parameters
    ----------
    config : TrainingConfig
        What to train and how, as :func:`models.registry.get_preset` returns it.
    store : str
        Path or URL of the session store.
    sessions : sequence of str, or None
        Aliases, full names, ``new``, ``old`` or ``all``; None for every session of the store.
    runs : str or Path
        The folder that runs are kept in.
    progress : Progress
        Told after every optimizer step. Training usually stops before its last epoch, so the end comes suddenly.
    on_epoch : callable, optional
        Given every epoch's metrics, in the thread that trains.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened.
    UsageError
        If a session has no trials to train or validate on, if its trials are shorter than the windows, or if the
        device is not there. No folder has been made then.
    RunError
        If another process trains this run, or the loss stops being a number.
    """
    chosen = stored_sessions(store) if sessions is None else find_sessions(sessions)
    if not chosen:
        raise UsageError("no session to train on", path=store, remedy="name sessions, or ingest some")
    names = [session.name for session in chosen]
    device = choose_device(config.device)
    data = describe_data(store, chosen)
    identity = identify_run(config, data)
    path = Path(runs) / run_name(config, identity)
    if path.exists():
        return _report_existing(path, identity)

    started = time.perf_counter()
    reader = TrialReader(store, names, cache_bytes=config.cache_bytes)
    loader = WindowLoader(reader, open_normalizers(config.normalization, store, names))
    with repeatable(config.seed, device):
        trainer = Trainer(config, data, loader, device)
        with publish_run(path, identity, config, data) as folder:
            folder.write_environment(device)
            metrics = []
            with MetricsLog(folder.path) as log:
                for epoch in trainer.fit(progress):
                    metrics.append(epoch)
                    log.append(epoch)
                    if on_epoch is not None:
                        on_epoch(epoch)
            schedule = trainer.schedule
            draw_curves(metrics, folder.path / "curves.png", title=path.name, best_epoch=schedule.best_epoch)
            write_summary(
                metrics,
                folder.path / "summary.md",
                title=path.name,
                best_epoch=schedule.best_epoch,
                n_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
                n_trials=trainer.n_trials,
                device=str(device),
            )
            duration_s = time.perf_counter() - started
            folder.write_model(
                trainer.model,
                best_epoch=schedule.best_epoch,
                best_correlation=schedule.best_score,
                duration_s=duration_s,
            )
    return TrainingReport(
        run=str(path),
        status="trained",
        sessions=tuple(names),
        n_epochs=len(metrics),
        best_epoch=schedule.best_epoch,
        best_correlation=schedule.best_score,
        duration_s=duration_s,
    )


def _report_existing(path: Path, identity: str) -> TrainingReport:
    run = load_run(path)
    if run.identity != identity:
        raise RunError(
            "another run has this name",
            path=path,
            found=f"identity {run.identity[:12]}",
            expected=identity[:12],
            remedy="move it, or choose another folder for runs",
        )
    return TrainingReport(
        run=str(path),
        status="already done",
        sessions=tuple(session.name for session in run.sessions),
        n_epochs=len(run.metrics()),
        best_epoch=run.best_epoch,
        best_correlation=run.best_correlation,
        duration_s=run.duration_s,
    )
