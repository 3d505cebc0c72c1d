"""From a preset and session stores to a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from models.config import TrainingConfig
from models.devices import bound_threads, choose_device, repeatable
from models.runs import (
    UNFINISHED,
    EpochMetrics,
    MetricsLog,
    NoRunError,
    Run,
    RunData,
    RunFolder,
    RunsFolder,
    describe_data,
    explain_no_unfinished,
    identify_run,
    load_run,
    open_checkpoints,
    open_runs,
    publish_run,
    remove_checkpoints,
    require_unchanged,
    run_name,
)
from models.sources import explain_failures
from models.training.batches import Split, TrainingBatches, open_reader, split_trials
from models.training.curves import draw_curves, write_summary
from models.training.distillation import load_teacher
from models.training.interruption import Interruption
from models.training.ranks import Ranks, open_ranks
from models.training.selection import select_neurons
from models.training.trainer import Trainer
from sensorium_data.errors import RunError, StoreError, UsageError
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.movies import unlinked_sessions
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, find_session, find_sessions
from sensorium_data.store import Store, StoreLike, ingest_command, open_store

__all__ = ["TrainingReport", "find_finished_run", "identify_runs", "train"]


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
        Their single-trial correlation on the validation trials, over the neurons of all sessions.
    duration_s : float
        Time that all its epochs took.
    resumed_step : int
        Optimizer steps of an interrupted attempt that this one went on from; 0 if it began anew.
    notes : tuple of str
        What was odd, a sentence each: damaged checkpoints, tiers withheld in some sessions, statistics that end before
        the trials do, trials and neurons that were left out.
    """

    run: str
    status: str
    sessions: tuple[str, ...]
    n_epochs: int
    best_epoch: int
    best_correlation: float
    duration_s: float
    resumed_step: int = 0
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        heads = ("run", "status", "epochs", "best epoch", "validation correlation", "minutes")
        row = (self.run, self.status, self.n_epochs, self.best_epoch, self.best_correlation, self.duration_s / 60)
        return write_html_table("Training", heads, [row]) + write_html_lines(self.notes)


def train(
    config: TrainingConfig,
    store: StoreLike,
    sessions: Sequence[str] | None,
    runs: str | Path,
    *,
    resume: bool = False,
    restart: bool = False,
    trust_code: bool | Collection[str] = False,
    lock: bool = True,
    progress: Progress = ignore_progress,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> TrainingReport:
    """Train a model and leave a run folder, ``<runs>/<preset>-<digest>``.

    A run is known by its recipe and the content of its data: if it exists, nothing is done. While it is trained
    its folder is called ``<name>.partial``; a run that was interrupted, at whatever point, goes on from its last
    checkpoint and ends, on a CPU, with the weights that it would have had, bit by bit. Ctrl-C and SIGTERM are heeded
    after the step that is under way.

    Under torchrun, every process calls this with the same arguments; the first one writes and reports.

    Parameters
    ----------
    config : TrainingConfig
        What to train and how, as :func:`models.registry.get_preset` returns it.
    store : Store or path
        The session stores, or the path or URL of their root.
    sessions : sequence of str, or None
        Aliases, full names, ``new``, ``old`` or ``all``; None for every session of the store.
    runs : str or Path
        The folder that runs are kept in, or any fsspec URL of it. Behind a URL, checkpoints are sent as they are
        saved, and another machine goes on from them.
    resume : bool
        Refuse to begin anew: there has to be an unfinished or a finished run of this recipe and data. A finished one
        is left alone, so that a run that is scheduled again does not fail.
    restart : bool
        Begin anew in any case, and throw away what an interrupted attempt left. A finished run stays.
    trust_code : bool or collection of str
        Whether the code of a teacher may run, as in :func:`models.prediction.predict`.
    lock : bool
        Whether a run in an object store is locked while it is trained. If not, the user sees to it that nobody else
        trains it.
    progress : Progress
        Told after every optimizer step. Training usually stops before its last epoch, so the end comes suddenly.
    on_epoch : callable, optional
        Given every epoch's metrics, in the thread that trains.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened, or a trial lacks behavior or pupil center at some frames and
        ``nan_policy`` does not allow for that. :class:`~sensorium_data.errors.LockedError` if another process trains
        this run into the same object store, and :class:`~sensorium_data.errors.UnlockableError` if that cannot be
        locked.
    TrialError
        If a trial to leave out does not exist.
    UsageError
        If a session has no trials to train or validate on or no neuron that is reliable enough, if its trials are
        shorter than the windows, or if the device is not there. No folder has been made then.
    RunError
        If another process trains this run, if its checkpoints cannot be used, if there is nothing to resume, if
        the loss stops being a number, if the GPU's memory does not suffice, or if the store changes meanwhile.
    TerminatedError
        After SIGTERM; a kind of RunError.
    KeyboardInterrupt
        After Ctrl-C.
    """
    if resume and restart:
        raise UsageError("to resume and to restart exclude each other", remedy="choose one")
    opened = open_store(store)
    chosen = _choose_sessions(opened, sessions, config)
    names = [session.name for session in chosen]
    folder = open_runs(runs)
    bound_threads()
    with open_ranks(config.n_devices, choose_device(config.device)) as (ranks, device):
        neurons = select_neurons(config, opened, chosen)
        data = describe_data(opened, chosen, neurons)
        teacher = load_teacher(config, data)
        # What cannot be trained on is refused here, before a folder is made.
        batches = TrainingBatches(config, opened, names, device, neurons)
        data = _complete(data, config, teacher, batches.split)
        identity = identify_run(config, data)
        if len(set(ranks.gather(identity))) > 1:
            raise RunError(
                "the processes of the run do not train the same",
                found="models whose code differs between them",
                remedy="leave the code as it is while a training starts, and train again",
            )
        name = run_name(config, identity)
        if ranks.broadcast(ranks.is_first and _find(folder, name, lock=lock)):
            return _report_existing(folder, name, identity)
        if resume and not ranks.broadcast(ranks.is_first and folder.has_unfinished(name)):
            raise explain_no_unfinished(folder, config, data)
        failures = explain_failures(config.model.kind.rpartition(":")[2], config.model.code)
        with repeatable(config.seed, device), _explained_memory(config), failures:
            trainer = Trainer(
                config,
                data,
                batches,
                device,
                ranks=ranks,
                teacher=None if teacher is None else teacher.model(device, trust_code=trust_code),
            )
            if ranks.is_first:
                with publish_run(folder, name, identity, config, data, restart=restart, lock=lock) as files:
                    run = folder.locate(name)
                    report = _train_into(files, trainer, batches, data, run, ranks, device, progress, on_epoch)
                # Only now: another rank that is done ends its process, and torchrun all others with it.
                return ranks.broadcast(report)
            return _assist(folder.path(name + UNFINISHED), identity, config, trainer, ranks)


def find_finished_run(
    config: TrainingConfig, store: StoreLike, sessions: Sequence[str] | None, runs: str | Path
) -> TrainingReport | None:
    """Return the report of the run that :func:`train` would find finished, None if it would train.

    Nothing is trained or written.

    Parameters
    ----------
    config, store, sessions, runs
        As in :func:`train`.

    Raises
    ------
    StoreError, UsageError
        As in :func:`train`.
    RunError
        If the run is damaged, its weights too.
    """
    (identity,) = identify_runs([config], store, sessions)
    folder, name = open_runs(runs), run_name(config, identity)
    # Another run that happens to have the name: training says what to do about it.
    if not folder.receive(name) or _load_existing(folder, name).identity != identity:
        return None
    return _report_existing(folder, name, identity)


def identify_runs(
    configs: Sequence[TrainingConfig], store: StoreLike, sessions: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the identities of the runs that :func:`train` would train; nothing is trained or written.

    Parameters
    ----------
    configs : sequence of TrainingConfig
        They differ in their seeds, folds and teachers alone.
    store, sessions
        As in :func:`train`.

    Raises
    ------
    StoreError, UsageError, RunError
        As in :func:`train`.
    """
    # What they share is read once.
    opened = open_store(store)
    chosen = _choose_sessions(opened, sessions, configs[0])
    data = describe_data(opened, chosen, select_neurons(configs[0], opened, chosen))
    has_folds = configs[0].n_folds is not None
    reader = open_reader(configs[0], opened, [session.name for session in chosen]) if has_folds else None
    complete: dict[tuple[int | None, str | None], RunData] = {}
    for config in configs:
        if (config.fold, config.teacher) not in complete:
            split = None if reader is None else split_trials(config, reader)
            complete[config.fold, config.teacher] = _complete(data, config, load_teacher(config, data), split)
    return tuple(identify_run(config, complete[config.fold, config.teacher]) for config in configs)


def _find(folder: RunsFolder, name: str, *, lock: bool) -> bool:
    """Whether there is a finished run; one that was not sent when it was finished is sent now."""
    if folder.receive(name):
        return True
    if not folder.path(name).exists():
        return False
    with folder.hold(name, lock=lock):
        folder.send_finished(name)
    return True


def _choose_sessions(store: Store, sessions: Sequence[str] | None, config: TrainingConfig) -> tuple[Session, ...]:
    chosen = store.require_all() if sessions is None else find_sessions(sessions)
    if not chosen:
        raise UsageError("no session to train on", path=store.url, remedy="name sessions, or ingest some")
    if config.n_folds is not None and config.fold_rule == "movies" and len(chosen) > 1:
        # A movie of several sessions would be trained on and validated on.
        unlinked = set(unlinked_sessions(store)) & {session.name for session in chosen}
        if unlinked:
            first = find_session(min(unlinked))
            raise StoreError(
                "folds need to know which movies several sessions show",
                path=store.url,
                found=f"not compared with the others: {', '.join(sorted(unlinked))}",
                remedy=f"`{ingest_command(store.objects, first, store.group(first))}` compares them",
            )
    return tuple(chosen)


def _complete(data: RunData, config: TrainingConfig, teacher: Run | None, split: Split | None) -> RunData:
    """Return a run's data with what its config adds to it."""
    return data.model_copy(
        update={
            "split": None if config.n_folds is None or split is None else split.digest,
            "teacher": None if teacher is None else teacher.digest,
        }
    )


def _train_into(
    folder: RunFolder,
    trainer: Trainer,
    batches: TrainingBatches,
    data: RunData,
    run: str,
    ranks: Ranks,
    device: torch.device,
    progress: Progress,
    on_epoch: Callable[[EpochMetrics], None] | None,
) -> TrainingReport:
    """Train, and fill the run's folder."""
    ranks.broadcast("the folder is there")
    checkpoints = folder.open_checkpoints()
    checkpoint = checkpoints.load()
    if checkpoint is not None:
        trainer.restore(checkpoint)
    resumed_step = trainer.position.n_steps
    folder.write_environment(device, n_ranks=ranks.n_ranks, resumed_step=resumed_step)
    with MetricsLog(folder.path, trainer.metrics) as log, Interruption() as interruption:
        for epoch in trainer.fit(progress, checkpoints=checkpoints, interruption=interruption):
            log.append(epoch)
            if on_epoch is not None:
                on_epoch(epoch)
    require_unchanged(data)
    metrics, best_epoch = trainer.metrics, trainer.schedule.best_epoch
    title = Path(run).name
    notes = (*batches.notes, *checkpoints.notes)
    draw_curves(metrics, folder.path / "curves.png", title=title, best_epoch=best_epoch)
    write_summary(
        metrics,
        folder.path / "summary.md",
        title=title,
        best_epoch=best_epoch,
        n_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        n_trials=sum(len(trials) for trials in batches.split.training),
        device=str(device) if ranks.n_ranks == 1 else f"{ranks.n_ranks} × {device.type}",
        notes=notes,
    )
    duration_s = sum(epoch.duration_s for epoch in metrics)
    folder.write_model(
        trainer.model, best_epoch=best_epoch, best_correlation=trainer.best_correlation, duration_s=duration_s
    )
    return TrainingReport(
        run=run,
        status="trained",
        sessions=batches.sessions,
        n_epochs=len(metrics),
        best_epoch=best_epoch,
        best_correlation=trainer.best_correlation,
        duration_s=duration_s,
        resumed_step=resumed_step,
        notes=notes,
    )


def _assist(partial: Path, identity: str, config: TrainingConfig, trainer: Trainer, ranks: Ranks) -> TrainingReport:
    """Train along with the first rank, and write nothing."""
    ranks.broadcast("the folder is there")
    checkpoint = open_checkpoints(partial, identity, config).load()
    if checkpoint is not None:
        trainer.restore(checkpoint)
    with Interruption() as interruption:
        for _ in trainer.fit(interruption=interruption):
            pass
    report: Any = None
    return cast(TrainingReport, ranks.broadcast(report))


@contextmanager
def _explained_memory(config: TrainingConfig) -> Iterator[None]:
    """Say what to lower if the GPU's memory does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            "out of GPU memory",
            found=str(error).partition(". ")[0],
            remedy=f"lower batch_size ({config.batch_size}) or n_frames_window ({config.n_frames_window}), set "
            f"precision to bf16-mixed ({config.precision} now), or cache to memory or none ({config.cache} now)",
        ) from error


def _load_existing(folder: RunsFolder, name: str) -> Run:
    path = folder.path(name)
    try:
        return load_run(path)
    except NoRunError as error:
        raise RunError(
            "something else lies where the run would be",
            path=folder.locate(name),
            found="a folder that is no run" if path.is_dir() else "a file",
            remedy="move it, or choose another folder for runs",
        ) from error


def _report_existing(folder: RunsFolder, name: str, identity: str) -> TrainingReport:
    path = folder.path(name)
    run = _load_existing(folder, name)
    # Who asks for a model wants one that can be used, and what is told of it.
    run.require_whole()
    # Left by a process that was killed when all else was done.
    remove_checkpoints(path)
    if run.identity != identity:
        raise RunError(
            "another run has this name",
            path=folder.locate(name),
            found=f"identity {run.identity[:12]}",
            expected=identity[:12],
            remedy="move it, or choose another folder for runs",
        )
    return TrainingReport(
        run=folder.locate(name),
        status="already done",
        sessions=tuple(session.name for session in run.sessions),
        n_epochs=len(run.metrics()),
        best_epoch=run.best_epoch,
        # Only runs that were not trained here have none, and these have other identities.
        best_correlation=math.nan if run.best_correlation is None else run.best_correlation,
        duration_s=run.duration_s,
    )
