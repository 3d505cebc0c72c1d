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
    WholeNumber,
    excluded_trials,
    key_values,
    print_json,
    runs_as_flow,
    say,
)
from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.training import TrainingJob
    from models.runs import EpochMetrics
    from models.training import EnsembleReport, TrainingReport, Variations

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
        int | Literal["all"] | None,
        WholeNumber,
        Parameter(
            help="Cross-validate: deal the movies of the training trials in so many folds. all: train an ensemble of a "
            "run for each fold that the preset has."
        ),
    ] = None,
    fold: Annotated[
        int | Literal["all"] | None,
        WholeNumber,
        Parameter(
            help="The fold to validate on, from 0; the others are trained on. Goes with --folds. all: an ensemble of a "
            "run for each."
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        ListOption,
        Parameter(
            help="Finished run that the model learns from, or the name of an ensemble in the folder of runs. Of "
            "several, each fold learns from its own."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        WholeNumber,
        Parameter(help="Seed of the weights and the windows; with --seeds the first one. Default: the preset's, or 0."),
    ] = None,
    seeds: Annotated[
        int | None,
        WholeNumber,
        Parameter(help="Train an ensemble: a run for each of so many seeds. Finished ones are left alone."),
    ] = None,
    ensemble: Annotated[
        str | None, Parameter(help="What to call it for `predict --ensemble`. Default: PRESET-N-folds-N-seeds.")
    ] = None,
    at_once: Annotated[
        int,
        WholeNumber,
        Parameter(help="Train so many runs of an ensemble at once, each on its own GPU, or its share of the cores."),
    ] = 1,
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
        int | None,
        WholeNumber,
        Parameter(help="Train on so many trials of each session, drawn whatever the seed. Default: all."),
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
    from flows.training import TrainingJob, merge_settings, plan_members, with_teacher
    from sensorium_data.sessions import find_sessions

    all_folds = "all" in (folds, fold)
    if folds == "all" and fold not in (None, "all"):
        raise UsageError("all folds and one of them", found=f"--folds all --fold {fold}", remedy="give one of both")
    n_folds = folds if isinstance(folds, int) else None
    first_fold = 0 if fold == "all" and n_folds is not None else fold if isinstance(fold, int) else None
    job = TrainingJob(
        preset=preset,
        settings=merge_settings(
            key_values(settings or []),
            folds=n_folds,
            fold=first_fold,
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
    teachers = teacher or []
    if teachers and "teacher" in job.settings:
        raise UsageError("setting teacher is given twice", found="--set teacher and --teacher", remedy="give it once")
    variations = plan_members(job, seeds=seeds, all_folds=all_folds, teachers=teachers, name=ensemble)
    if at_once < 1:
        raise UsageError("the number of runs at once makes no sense", found=at_once, expected="at least 1")
    if at_once != 1 and variations is None:
        raise UsageError("one run alone is trained", found=f"--at-once {at_once}", remedy="add --seeds, or --folds all")
    if flow and at_once != 1:
        raise UsageError(
            "a flow trains the runs of an ensemble one after the other",
            found=f"--at-once {at_once}",
            remedy="leave out --flow, or run the deployment train for each fold",
        )
    # Also where a server is named in the environment.
    as_flow = at_once == 1 and runs_as_flow(flow, "flows.train")
    if variations is None:
        job = with_teacher(job, teachers)
        report = _train_as_flow(job) if as_flow else _train_at_terminal(job)
        if as_json:
            print_json(asdict(report))
        else:
            print_training(table_console(), report)
        return EXIT_DONE
    trained = (
        _train_members_as_flow(job, variations, ensemble)
        if as_flow
        else _train_members(job, variations, ensemble, at_once)
    )
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


def _train_members_as_flow(job: TrainingJob, variations: Variations, ensemble: str | None) -> EnsembleReport:
    from flows.train import train_ensemble as train_ensemble_flow

    return train_ensemble_flow(
        job.preset,
        job.store,
        variations.n_seeds,
        ensemble,
        None if job.sessions is None else list(job.sessions),
        job.runs,
        dict(job.settings),
        all_folds=variations.all_folds,
        teachers=list(variations.teachers) or None,
        restart=job.restart,
        trust_code=bool(job.trust_code),
        no_lock=not job.lock,
    )


def _train_members(job: TrainingJob, variations: Variations, ensemble: str | None, n_at_once: int) -> EnsembleReport:
    from flows.training import train_members

    def describe(one: TrainingJob) -> str:
        fold, seed = one.settings.get("fold"), one.settings["seed"]
        parts = [f"fold {fold}"] * variations.all_folds + [f"seed {seed}"] * (variations.n_seeds is not None)
        return ", ".join(parts)

    def train_in_turn(jobs: Sequence[TrainingJob]) -> list[TrainingReport]:
        reports = []
        for one in jobs:
            say(f"→ {describe(one)}")
            reports.append(_train_at_terminal(one))
        return reports

    def train_at_once(jobs: Sequence[TrainingJob]) -> list[TrainingReport]:
        from flows.cli.tables import error_console
        from flows.reporting import describe_epoch, show_progress
        from flows.training import train_side_by_side

        console = error_console()
        with show_progress(console) as progress:
            return train_side_by_side(
                jobs,
                n_at_once,
                describe=describe,
                progress=progress,
                on_epoch=lambda name, epoch: console.print(f"{name}: {describe_epoch(epoch)}", soft_wrap=True),
                write_line=lambda line: console.print(line, soft_wrap=True),
            )

    return train_members(job, variations, ensemble, train_in_turn if n_at_once == 1 else train_at_once)


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
