"""What is to be trained, as a command or flow was asked for it, and the training of it in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from models.config import TrainingConfig, override
from models.registry import get_preset
from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from flows.reporting import NotedProgress
    from models.runs import EpochMetrics
    from models.training import EnsembleReport, TrainingReport, Variations

__all__ = [
    "Cache",
    "Device",
    "TrainingJob",
    "find_finished",
    "merge_settings",
    "plan_members",
    "train_here",
    "train_members",
    "with_teacher",
]

Cache = Literal["auto", "none", "memory", "device"]
Device = Literal["auto", "cpu", "cuda"]


class TrainingJob(BaseModel):
    """A preset, the settings changed in it, the data, and what becomes of an unfinished run.

    Looks nothing up by itself: a job can be written as JSON and read in another process.

    Attributes
    ----------
    preset : str
        Its name, or a class in a file or a module, as :func:`models.registry.get_preset` takes it.
    settings : mapping of str to str
        What to change in it, as :func:`models.config.override` takes it.
    store : str
        Root of the session stores.
    sessions : tuple of str, or None
        What to train on; None for every session of the store.
    runs : str
        The folder that runs are kept in.
    resume : bool
        Whether there has to be an unfinished run to continue.
    restart : bool
        Whether an unfinished run is thrown away.
    trust_code : bool or tuple of str
        Whether a teacher's code may run, as in :func:`models.training.train`.
    lock : bool
        Whether the run is locked where runs are kept in an object store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    settings: Mapping[str, str] = {}
    store: str
    sessions: tuple[str, ...] | None = None
    runs: str
    resume: bool = False
    restart: bool = False
    trust_code: bool | tuple[str, ...] = False
    lock: bool = True

    def config(self) -> TrainingConfig:
        """Return what to train and how.

        Raises
        ------
        UsageError
            If the preset or a setting does not exist, settings do not fit each other, or the job contradicts itself.
        """
        if self.resume and self.restart:
            raise UsageError(
                "a run is continued or started over, not both",
                found="resume and restart",
                remedy="give one of them, or neither to continue if there is something to continue",
            )
        return override(get_preset(self.preset), self.settings)

    def for_member(self, config: TrainingConfig) -> TrainingJob:
        """Return the job of one member of an ensemble, whose recipe this is."""
        own = {"seed": config.seed, "fold": config.fold, "teacher": config.teacher}
        settings = {**self.settings, **{name: str(value) for name, value in own.items() if value is not None}}
        return self.model_copy(update={"settings": settings})

    @property
    def n_devices(self) -> int:
        """Of how many GPUs or processes the run takes."""
        return self.config().n_devices


def merge_settings(
    settings: Mapping[str, object],
    *,
    folds: int | None = None,
    fold: int | None = None,
    cache: Cache | None = None,
    device: Device | None = None,
    exclude: Sequence[str] | None = None,
    nan: str | None = None,
    n_trials: int | None = None,
    neurons: str | None = None,
    min_reliability: float | None = None,
    seed: int | None = None,
) -> dict[str, str]:
    """Return settings of a preset, those with an option of their own among them.

    Parameters
    ----------
    settings : mapping of str to object
        Given by name: text as :func:`models.config.override` takes it, or numbers, booleans, None, and lists of these
        and of text.
    folds, fold : int, optional
        In how many folds the movies are dealt, and which of them, from 0, is validated on. A preset with folds needs no
        number.
    cache, device : str, optional
        As the settings of that name.
    exclude : sequence of str, optional
        Trials to leave out, ``SESSION:TRIAL`` each.
    nan : str, optional
        The setting ``nan_policy``.
    n_trials, neurons, min_reliability, seed : optional
        As the settings of that name.

    Raises
    ------
    UsageError
        If a setting is given both ways or is something else, folds are given without a fold, or it is none of them.
    """
    if folds is not None and fold is None:
        raise UsageError(
            "the number of folds and the fold to validate on go together",
            found=f"folds {folds}",
            expected="both",
            remedy="e.g. --folds 7 --fold 0, or --fold all for each of them",
        )
    if folds is not None and fold is not None:
        if folds < 2:
            raise UsageError("the number of folds makes no sense", found=folds, expected="at least 2")
        if not 0 <= fold < folds:
            raise UsageError("there is no such fold", found=f"fold {fold}", expected=f"0 to {folds - 1}")
    options = {
        "n_folds": folds,
        "fold": fold,
        "cache": cache,
        "device": device,
        "exclude": ",".join(exclude) if exclude else None,
        "nan_policy": nan,
        "n_trials": n_trials,
        "neurons": neurons,
        "min_reliability": min_reliability,
        "seed": seed,
    }
    merged = {name: _write_setting(name, value) for name, value in settings.items()}
    for name, value in options.items():
        if value is None:
            continue
        if name in merged:
            raise UsageError(
                f"setting {name} is given twice",
                found=f"{merged[name]!r} by its name and {str(value)!r} by its own option",
                remedy="give it once",
            )
        merged[name] = str(value)
    return merged


def _write_setting(name: str, value: object) -> str:
    """Return a setting as it is typed on a command line."""
    match value:
        case str():
            return value
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list() | tuple() if not any(isinstance(one, list | tuple) for one in value):
            return ",".join(_write_setting(name, one) for one in value)
    raise UsageError(
        f"setting {name}",
        found=json.dumps(value, default=str),
        expected="text, a number, true, false, null, or a list of these",
        remedy="name settings within others with a dot, e.g. model.channels",
    )


def find_finished(job: TrainingJob) -> TrainingReport | None:
    """Return the report of a job's run if that is finished already, else None; nothing is trained or written.

    Raises
    ------
    SensoriumError
        If the store cannot be opened, or the run is damaged.
    """
    from models.training import find_finished_run

    return find_finished_run(job.config(), job.store, job.sessions, job.runs)


def with_teacher(job: TrainingJob, teachers: Sequence[str]) -> TrainingJob:
    """Return a job whose model learns from the one of some runs that is of its own fold.

    Parameters
    ----------
    job : TrainingJob
        Of one run.
    teachers : sequence of str
        Finished runs, or names of ensembles in the job's folder of runs; without any, the job stays as it is.

    Raises
    ------
    SensoriumError
        If no teacher is of its fold, or several are; if a run or an ensemble is missing, unfinished or damaged.
    """
    if not teachers:
        return job
    from models.runs import expand_ensembles
    from models.training import Variations

    (config,) = Variations(teachers=expand_ensembles(job.runs, teachers)).vary(job.config())
    return job.for_member(config)


def plan_members(
    job: TrainingJob, *, seeds: int | None, all_folds: bool, teachers: Sequence[str], name: str | None
) -> Variations | None:
    """Return in what the runs of a job differ, None if it is one run; nothing is opened or started.

    Parameters
    ----------
    job : TrainingJob
        If it sets a seed, that is the first one of several; otherwise 0 is.
    seeds : int, optional
        How many.
    all_folds : bool
        Whether all of its folds are trained.
    teachers : sequence of str
        What they learn from, as :func:`with_teacher` takes them.
    name : str, optional
        Of the ensemble.

    Raises
    ------
    UsageError
        If there are no such seeds or folds, the name cannot be one or names one run, or an unfinished run is to be
        resumed.
    """
    from models.training import Variations

    if seeds is None and not all_folds:
        if name is not None:
            raise UsageError(
                "one run is no ensemble", found=f"--ensemble {name}", remedy="add --seeds with a number, or --folds all"
            )
        return None
    if job.resume:
        raise UsageError(
            "an ensemble has no unfinished run to resume alone",
            found="resume and several runs",
            remedy="leave out resume: finished runs are left alone, and an interrupted one is continued",
        )
    config = job.config()
    first_seed = config.seed if "seed" in job.settings else 0
    variations = Variations(n_seeds=seeds, first_seed=first_seed, all_folds=all_folds, teachers=tuple(teachers))
    variations.name(config, name)
    return variations


def train_members(
    job: TrainingJob,
    variations: Variations,
    name: str | None,
    train: Callable[[Sequence[TrainingJob]], Sequence[TrainingReport]],
) -> EnsembleReport:
    """Train the members of an ensemble, and leave its record.

    Parameters
    ----------
    job : TrainingJob
        What the members have in common.
    variations : Variations
        In what they differ, as :func:`plan_members` returns it.
    name : str or None
        Of the ensemble; None for the one that :func:`models.training.train_ensemble` gives it.
    train : callable
        Trains the jobs of all members.

    Raises
    ------
    SensoriumError
        As :func:`models.training.train_ensemble` does.
    """
    from models.runs import expand_ensembles
    from models.training import train_ensemble

    teachers = expand_ensembles(job.runs, variations.teachers)
    return train_ensemble(
        job.config(),
        job.store,
        job.sessions,
        job.runs,
        dataclasses.replace(variations, teachers=teachers),
        name=name,
        train=lambda configs: train([job.for_member(one) for one in configs]),
    )


def train_here(
    job: TrainingJob,
    *,
    progress: NotedProgress,
    on_epoch: Callable[[EpochMetrics], None],
) -> TrainingReport:
    """Train a job in this process.

    Parameters
    ----------
    job : TrainingJob
        What to train.
    progress : NotedProgress
        Told of windows, not batches, with a note on the epoch, the wait for data and the GPU's memory.
    on_epoch : callable
        Given every epoch's metrics.

    Raises
    ------
    SensoriumError
        As :func:`models.training.train` does.
    """
    from flows.training.progress import TrainingProgress
    from models.training import train

    config = job.config()
    shown = TrainingProgress(config, progress)

    def take_epoch(metrics: EpochMetrics) -> None:
        shown.take_epoch(metrics)
        on_epoch(metrics)

    report = train(
        config,
        job.store,
        job.sessions,
        job.runs,
        resume=job.resume,
        restart=job.restart,
        trust_code=job.trust_code,
        lock=job.lock,
        progress=shown,
        on_epoch=take_epoch,
    )
    shown.finish()
    return report
