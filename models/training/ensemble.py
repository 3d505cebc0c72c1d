"""From a preset to several runs that differ in their seeds, and predict together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.config import TrainingConfig
from models.runs import (
    Ensemble,
    EnsembleMember,
    begin_ensemble,
    describe_member,
    load_run,
    open_runs,
    require_ensemble_name,
    run_name,
    write_ensemble,
)
from models.training.training import TrainingReport, identify_runs
from models.training.training import train as train_run
from sensorium_data.errors import UsageError
from sensorium_data.store import StoreLike

__all__ = ["MAX_SEEDS", "EnsembleReport", "name_ensemble", "train_ensemble"]

#: Runs of one ensemble. More would be a mistake.
MAX_SEEDS = 1000
_LAST_SEED = 2**63 - 1


@dataclass(frozen=True)
class EnsembleReport:
    """What :func:`train_ensemble` did.

    Attributes
    ----------
    name : str
        Of the ensemble.
    record : str
        Path or URL of its record.
    status : str
        ``"trained"``, or ``"already done"`` if all its runs existed.
    runs : tuple of TrainingReport
        In the order of their seeds.
    """

    name: str
    record: str
    status: str
    runs: tuple[TrainingReport, ...]


def train_ensemble(
    config: TrainingConfig,
    store: StoreLike,
    sessions: Sequence[str] | None,
    runs: str | Path,
    *,
    n_seeds: int,
    first_seed: int = 0,
    name: str | None = None,
    train: Callable[[TrainingConfig], TrainingReport] | None = None,
) -> EnsembleReport:
    """Train one run for each of several seeds, one after the other, and leave a record by which they predict together.

    Finished runs are left alone, and an interrupted one is continued. The record names all runs before the first one is
    trained, and has the digests of their weights at the end.

    Parameters
    ----------
    config : TrainingConfig
        What to train and how; its seed does not count.
    store, sessions, runs
        As in :func:`models.training.train`.
    n_seeds : int
        How many runs.
    first_seed : int
        Theirs are this one and the ones after it.
    name : str, optional
        Of the ensemble; by default the preset's with the number of seeds, ``factorized3d-14-seeds``.
    train : callable, optional
        Trains one of them; by default :func:`models.training.train` with these arguments.

    Raises
    ------
    UsageError
        If there is no seed, one is negative, or the name cannot be one.
    RunError
        If there is an ensemble of this name with other members.
    SensoriumError
        As :func:`models.training.train` does.
    """
    name = name_ensemble(config, n_seeds=n_seeds, first_seed=first_seed, name=name)
    seeds = range(first_seed, first_seed + n_seeds)
    configs = [config.model_copy(update={"seed": seed}) for seed in seeds]
    identities = identify_runs(configs, store, sessions)
    planned = tuple(
        EnsembleMember(run=run_name(config, identity), identity=identity, seed=seed)
        for seed, identity in zip(seeds, identities, strict=True)
    )
    folder = open_runs(runs)
    ensemble = Ensemble(name=name, preset=config.name, members=planned)
    record = begin_ensemble(runs, ensemble)
    reports = [train(one) if train is not None else train_run(one, store, sessions, runs) for one in configs]
    finished = tuple(describe_member(load_run(folder.path(member.run)), member.seed) for member in planned)
    write_ensemble(runs, ensemble.model_copy(update={"members": finished}))
    is_done = all(report.status == "already done" for report in reports)
    return EnsembleReport(name, record, "already done" if is_done else "trained", tuple(reports))


def name_ensemble(config: TrainingConfig, *, n_seeds: int, first_seed: int = 0, name: str | None = None) -> str:
    """Return what :func:`train_ensemble` calls an ensemble, for arguments as it takes and errors as it raises.

    No store is opened.
    """
    if not 1 <= n_seeds <= MAX_SEEDS:
        raise UsageError("the number of seeds makes no sense", found=n_seeds, expected=f"1 to {MAX_SEEDS}")
    if not 0 <= first_seed <= _LAST_SEED - n_seeds + 1:
        raise UsageError("there are no such seeds", found=f"{n_seeds} from {first_seed}", expected=f"0 to {_LAST_SEED}")
    return require_ensemble_name(f"{config.name}-{n_seeds}-seeds" if name is None else name)
