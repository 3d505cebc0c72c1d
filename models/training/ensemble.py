"""From a preset to several runs that differ in their seeds or folds, and predict together."""

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
from models.training.distillation import choose_teacher
from models.training.training import TrainingReport, identify_runs
from models.training.training import train as train_run
from sensorium_data.errors import UsageError
from sensorium_data.store import StoreLike

__all__ = ["MAX_SEEDS", "EnsembleReport", "Variations", "train_ensemble"]

#: Runs of one ensemble that differ in their seeds alone. More would be a mistake.
MAX_SEEDS = 1000
_LAST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Variations:
    """In what the runs of an ensemble differ.

    Attributes
    ----------
    n_seeds : int or None
        How many seeds there are of each fold; None for the recipe's own alone.
    first_seed : int
        They are this one and the ones after it.
    all_folds : bool
        Each of the recipe's folds is validated on in a run of its own.
    teachers : tuple of str
        Folders of finished runs that the runs learn from, each from the one of its own fold.
    """

    n_seeds: int | None = None
    first_seed: int = 0
    all_folds: bool = False
    teachers: tuple[str, ...] = ()

    def name(self, config: TrainingConfig, name: str | None = None) -> str:
        """Return what an ensemble of a recipe is called, by default after its preset; nothing is opened.

        Raises
        ------
        UsageError
            If there is no seed, one is negative, the recipe has no folds, or the name cannot be one.
        """
        seeds = 1 if self.n_seeds is None else self.n_seeds
        if not 1 <= seeds <= MAX_SEEDS:
            raise UsageError("the number of seeds makes no sense", found=seeds, expected=f"1 to {MAX_SEEDS}")
        if not 0 <= self.first_seed <= _LAST_SEED - seeds + 1:
            raise UsageError(
                "there are no such seeds", found=f"{seeds} from {self.first_seed}", expected=f"0 to {_LAST_SEED}"
            )
        if self.all_folds and config.n_folds is None:
            raise UsageError(
                f"the recipe of {config.name} has no folds",
                found="all of its folds asked for",
                remedy="say how many there are: --folds 7 --fold all",
            )
        parts = [config.name]
        if self.all_folds:
            parts.append(f"{config.n_folds}-folds")
        if self.n_seeds is not None:
            parts.append(f"{self.n_seeds}-seeds")
        return require_ensemble_name("-".join(parts) if name is None else name)

    def vary(self, config: TrainingConfig) -> tuple[TrainingConfig, ...]:
        """Return the recipes of all runs: the seeds of the first fold, those of the second, and so on.

        Raises
        ------
        UsageError
            As :meth:`name` does; if a fold has no teacher, or several.
        RunError
            If a teacher is missing, unfinished or damaged.
        """
        self.name(config)
        seeds = (
            (config.seed,) if self.n_seeds is None else tuple(range(self.first_seed, self.first_seed + self.n_seeds))
        )
        folds = tuple(range(config.n_folds)) if self.all_folds and config.n_folds is not None else (config.fold,)
        return tuple(
            choose_teacher(config.model_copy(update={"fold": fold, "seed": seed}), self.teachers)
            for fold in folds
            for seed in seeds
        )


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
        In the order of :meth:`Variations.vary`.
    folds : tuple of (int or None)
        That each of them is validated on; None without folds.
    seeds : tuple of int
        Of each.
    """

    name: str
    record: str
    status: str
    runs: tuple[TrainingReport, ...]
    folds: tuple[int | None, ...]
    seeds: tuple[int, ...]


def train_ensemble(
    config: TrainingConfig,
    store: StoreLike,
    sessions: Sequence[str] | None,
    runs: str | Path,
    variations: Variations,
    *,
    name: str | None = None,
    train: Callable[[Sequence[TrainingConfig]], Sequence[TrainingReport]] | None = None,
) -> EnsembleReport:
    """Train runs that differ in their seeds or folds, and leave a record by which they predict together.

    Finished runs are left alone, and an interrupted one is continued. The record names all runs before the first one is
    trained, and has the digests of their weights at the end.

    Parameters
    ----------
    config : TrainingConfig
        What to train and how.
    store, sessions, runs
        As in :func:`models.training.train`.
    variations : Variations
        In what the runs differ.
    name : str, optional
        Of the ensemble; by default the preset's with the number of folds and seeds, ``factorized3d-14-seeds``.
    train : callable, optional
        Trains all of them; by default one after the other, with :func:`models.training.train` and these arguments.

    Raises
    ------
    UsageError
        As :meth:`Variations.vary` does, or if the name cannot be one.
    RunError
        If there is an ensemble of this name with other members.
    SensoriumError
        As :func:`models.training.train` does.
    """
    name = variations.name(config, name)
    configs = variations.vary(config)
    identities = identify_runs(configs, store, sessions)
    planned = tuple(
        EnsembleMember(run=run_name(one, identity), identity=identity, seed=one.seed, fold=one.fold)
        for one, identity in zip(configs, identities, strict=True)
    )
    folder = open_runs(runs)
    ensemble = Ensemble(name=name, preset=config.name, members=planned)
    record = begin_ensemble(runs, ensemble)
    reports = [train_run(one, store, sessions, runs) for one in configs] if train is None else list(train(configs))
    finished = tuple(describe_member(load_run(folder.path(member.run))) for member in planned)
    write_ensemble(runs, ensemble.model_copy(update={"members": finished}))
    is_done = all(report.status == "already done" for report in reports)
    return EnsembleReport(
        name=name,
        record=record,
        status="already done" if is_done else "trained",
        runs=tuple(reports),
        folds=tuple(one.fold for one in configs),
        seeds=tuple(one.seed for one in configs),
    )
