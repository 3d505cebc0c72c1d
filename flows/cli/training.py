"""The command that trains: a run, or an ensemble of runs.

Prefect, torch and matplotlib are imported by what needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    DeviceName,
    ExcludeFromOption,
    ExcludeOption,
    FlowOption,
    JsonOption,
    ListOption,
    NanOption,
    NoLockOption,
    StoreOption,
    TrustCodeOption,
    excluded_trials,
    key_values,
    print_json,
    runs_as_flow,
    say,
)
from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from flows.training import TrainingJob
    from models.runs import EpochMetrics
    from models.training import EnsembleReport, TrainingReport

__all__ = ["train"]


def train(
    preset: Annotated[
        str,
        Parameter(
            help="A preset, e.g. factorized3d; `sensorium models` lists them. Or a class: FILE.py:CLASS, MODULE:CLASS."
        ),
    ],
    *,
    store: StoreOption,
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions to train on. Default: all in the store.")
    ] = None,
    runs: Annotated[str | None, Parameter(help="Folder of training runs, or any fsspec URL. Default: runs.")] = None,
    settings: Annotated[
        list[str] | None, ListOption, Parameter(name="--set", help="Settings to change, e.g. --set max_epochs=3.")
    ] = None,
    resume: Annotated[
        bool,
        Parameter(
            negative="",
            help="Never begin anew: fail without an unfinished run, unless it is finished. Otherwise it is continued "
            "if it is there.",
        ),
    ] = False,
    restart: Annotated[bool, Parameter(negative="", help="Throw away what an unfinished run has done.")] = False,
    folds: Annotated[
        int | None, Parameter(help="Cross-validate: deal the movies of the training trials in so many folds.")
    ] = None,
    fold: Annotated[
        int | None, Parameter(help="The fold to validate on, from 0; the others are trained on. Goes with --folds.")
    ] = None,
    seed: Annotated[
        int | None,
        Parameter(help="Seed of the weights and the windows; with --seeds the first one. Default: the preset's, or 0."),
    ] = None,
    seeds: Annotated[
        int | None, Parameter(help="Train an ensemble: a run for each of so many seeds. Finished ones are left alone.")
    ] = None,
    ensemble: Annotated[
        str | None, Parameter(help="What to call it for `predict --ensemble`. Default: PRESET-N-seeds.")
    ] = None,
    cache: Annotated[
        Literal["auto", "none", "memory", "device"] | None,
        Parameter(help="Where decoded trials are kept. Default: as the preset has it."),
    ] = None,
    device: Annotated[
        DeviceName | None,
        Parameter(help="Where to train; auto takes a GPU if there is one. Default: as the preset has it."),
    ] = None,
    exclude: ExcludeOption = None,
    exclude_from: ExcludeFromOption = None,
    nan: NanOption = None,
    n_trials: Annotated[
        int | None, Parameter(help="Train on so many trials of each session, drawn whatever the seed. Default: all.")
    ] = None,
    neurons: Annotated[
        str | None,
        Parameter(help="Neurons of each session to train on: how many, or unit ids, e.g. 1-50,73. Default: all."),
    ] = None,
    min_reliability: Annotated[
        float | None, Parameter(help="Leave out neurons whose oracle correlation is below this. Default: none.")
    ] = None,
    trust_code: TrustCodeOption = False,
    no_lock: NoLockOption = False,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train a model. A finished run of the same configuration on the same data is left alone."""
    from dataclasses import asdict

    from flows.cli.summaries import print_ensemble, print_training
    from flows.cli.tables import table_console
    from flows.settings import Settings
    from flows.training import TrainingJob, merge_settings, require_seeds
    from sensorium_data.sessions import find_sessions

    job = TrainingJob(
        preset=preset,
        settings=merge_settings(
            key_values(settings or []),
            folds=folds,
            fold=fold,
            cache=cache,
            device=device,
            exclude=excluded_trials(exclude, exclude_from),
            nan=nan,
            n_trials=n_trials,
            neurons=neurons,
            min_reliability=min_reliability,
            seed=seed,
        ),
        store=store,
        sessions=None if sessions is None else tuple(session.name for session in find_sessions(sessions)),
        runs=runs or Settings().runs,
        resume=resume,
        restart=restart,
        trust_code=trust_code,
        lock=not no_lock,
    )
    # What is wrong with it is told before a server is started for it.
    job.config()
    if ensemble is not None and seeds is None:
        raise UsageError("one run is no ensemble", found=f"--ensemble {ensemble}", remedy="add --seeds with a number")
    if seeds is not None:
        require_seeds(job, seeds, ensemble)
    as_flow = runs_as_flow(flow, "flows.train")
    if seeds is None:
        report = _train_as_flow(job) if as_flow else _train_at_terminal(job)
        if as_json:
            print_json(asdict(report))
        else:
            print_training(table_console(), report)
        return EXIT_DONE
    trained = _train_seeds_as_flow(job, seeds, ensemble) if as_flow else _train_seeds(job, seeds, ensemble)
    if as_json:
        print_json(asdict(trained))
    else:
        print_ensemble(table_console(), trained)
    return EXIT_DONE


def _train_as_flow(job: TrainingJob) -> TrainingReport:
    from flows.train import train as train_flow

    return train_flow(
        job.preset,
        job.store,
        None if job.sessions is None else list(job.sessions),
        job.runs,
        dict(job.settings),
        resume=job.resume,
        restart=job.restart,
        trust_code=bool(job.trust_code),
        no_lock=not job.lock,
    )


def _train_seeds_as_flow(job: TrainingJob, seeds: int, ensemble: str | None) -> EnsembleReport:
    from flows.train import train_ensemble as train_ensemble_flow

    return train_ensemble_flow(
        job.preset,
        job.store,
        seeds,
        ensemble,
        None if job.sessions is None else list(job.sessions),
        job.runs,
        dict(job.settings),
        restart=job.restart,
        trust_code=bool(job.trust_code),
        no_lock=not job.lock,
    )


def _train_seeds(job: TrainingJob, seeds: int, ensemble: str | None) -> EnsembleReport:
    from flows.training import train_seeds

    def train_one(one: TrainingJob) -> TrainingReport:
        say(f"→ seed {one.settings['seed']}")
        return _train_at_terminal(one)

    return train_seeds(job, seeds, ensemble, train_one)


def _train_at_terminal(job: TrainingJob) -> TrainingReport:
    """Train in this process, or with several devices in processes of their own."""
    from flows.cli.tables import error_console
    from flows.reporting import describe_epoch, show_progress
    from flows.training import supervise_training, train_here

    # One console for both: a line of another one would tear the bars.
    console = error_console()

    def write_line(line: str) -> None:
        console.print(line, soft_wrap=True)

    def take_epoch(metrics: EpochMetrics) -> None:
        write_line(describe_epoch(metrics))

    with show_progress(console) as progress:
        # Whoever has started several processes with torchrun is one of them.
        if job.n_devices > 1 and "WORLD_SIZE" not in os.environ:
            return supervise_training(job, progress=progress, on_epoch=take_epoch, write_line=write_line)
        return train_here(job, progress=progress, on_epoch=take_epoch)
