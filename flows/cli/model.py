"""The commands on models and predictions.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    LOCAL_ONLY,
    DeviceName,
    ExcludeFromOption,
    ExcludeOption,
    FlowOption,
    FramesName,
    JobsOption,
    JsonOption,
    ListOption,
    NanOption,
    NoLockOption,
    StoreOption,
    TrustCodeOption,
    count_jobs,
    excluded_trials,
    key_values,
    print_json,
    print_lines,
    runs_as_flow,
    say,
    terminal_progress,
)
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.predictions import parse_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.training import TrainingJob
    from models.runs import EpochMetrics
    from models.training import EnsembleReport, TrainingReport

__all__ = ["leaderboard", "predict", "score", "train"]

ScoredTiersOption = Annotated[
    list[str] | None, ListOption, Parameter(name="--tier", help="Tiers to score. Default: all that were predicted.")
]
TruthOption = Annotated[
    str | None,
    Parameter(help="Truth of simulated sessions: scores withheld tiers, and the best possible score beside each."),
]
FramesOption = Annotated[
    FramesName,
    Parameter(help="Which frames of a trial are scored; official: all but the first 50."),
]
ResamplesOption = Annotated[int, Parameter(help="Bootstrap resamples behind each interval, 100 or more.")]
SeedOption = Annotated[int, Parameter(help="Seed of the resamples.")]


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
    from flows.training import TrainingJob, merge_settings
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

    if job.resume:
        raise UsageError("an ensemble has no unfinished run to resume alone", remedy="leave out --resume")
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


def predict(
    *run: Annotated[
        str, Parameter(help="Training runs; several make an ensemble by their mean, weighted with --weights.")
    ],
    store: StoreOption,
    tier: Annotated[
        list[str], ListOption, Parameter(help="Tiers: oracle, live_test_main, …; test for the four test tiers; all.")
    ],
    out: Annotated[str, Parameter(help="The predictions store to write.")],
    ensemble: Annotated[
        str | None, Parameter(help="An ensemble of `train --seeds`, by its name, instead of runs.")
    ] = None,
    runs: Annotated[
        str | None, Parameter(help="Folder of the runs of the ensemble, or any fsspec URL. Default: runs.")
    ] = None,
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions to predict. Default: all that the first run knows.")
    ] = None,
    weights: Annotated[
        str | None, Parameter(help="How much each of several runs counts, e.g. 1,2. Default: all the same.")
    ] = None,
    device: Annotated[DeviceName, Parameter(help="Where to predict; auto takes a GPU if there is one.")] = "auto",
    exclude: ExcludeOption = None,
    exclude_from: ExcludeFromOption = None,
    nan: NanOption = None,
    trust_code: TrustCodeOption = False,
    no_lock: NoLockOption = False,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Predict whole trials of some tiers into a predictions store. Interrupted, it continues at the trial it was at."""
    from dataclasses import asdict

    from flows.cli.tables import table_console
    from sensorium_data.store import parse_tiers

    tiers = list(dict.fromkeys(tier))
    # A mistyped name is told before runs are loaded.
    parse_tiers([name for name in tiers if name not in ("all", "test")], store)
    members = _find_members(run, ensemble, runs)
    shares = parse_weights(weights, len(members))
    excluded = excluded_trials(exclude, exclude_from)
    if runs_as_flow(flow, "flows.evaluate"):
        from flows.evaluate import predict as predict_flow

        report = predict_flow(
            members, store, tiers, out, sessions, shares, device, excluded, nan, trust_code, no_lock=no_lock
        )
    else:
        from models.prediction import predict as predict_tiers

        with terminal_progress() as progress:
            report = predict_tiers(
                members,
                store,
                tiers,
                out,
                sessions=sessions,
                weights=shares,
                device=device,
                progress=progress,
                exclude=excluded,
                nan_policy=nan,
                trust_code=trust_code,
                lock=not no_lock,
            )
    if as_json:
        print_json(asdict(report))
    else:
        predicted = f", {count_things(report.n_trials, 'trial')}" if report.status != "already done" else ""
        table_console().print(f"{report.predictions}: {report.status}{predicted}", soft_wrap=True)
        for note in report.notes:
            table_console().print(note, markup=False, soft_wrap=True)
    return EXIT_DONE


def _find_members(named: Sequence[str], ensemble: str | None, runs: str | None) -> list[str]:
    """Return the runs that predict: those that are named, or those of an ensemble."""
    if ensemble is None:
        if not named:
            raise UsageError(
                "no run named",
                expected="one training run or more",
                remedy="name the folders of the runs, or an ensemble with --ensemble",
            )
        if runs is not None:
            raise UsageError("--runs is the folder of an ensemble's runs", found=runs, remedy="add --ensemble")
        return list(named)
    if named:
        raise UsageError(
            "runs and an ensemble exclude each other",
            found=f"{', '.join(named)} and --ensemble {ensemble}",
            remedy="name one or the other",
        )
    from flows.settings import Settings
    from models.runs import find_members

    return list(find_members(runs or Settings().runs, ensemble))


def score(
    predictions: Annotated[str, Parameter(help="The predictions store.")],
    *,
    store: StoreOption,
    tier: ScoredTiersOption = None,
    truth: TruthOption = None,
    frames: FramesOption = "official",
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    by_depth: Annotated[
        bool, Parameter(negative="", help="Print both correlations by cortical depth too. JSON always has them.")
    ] = False,
    parquet: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(help="Write the metrics of every neuron to this Parquet file. Default: none."),
    ] = None,
    picture: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(
            help="Draw the scores of one tier, where the neurons lie, and traces into this PNG. The tier is the most "
            "telling one that was scored; --tier chooses it. Default: none."
        ),
    ] = None,
    jobs: JobsOption = None,
    dask: Annotated[
        str | None, Parameter(help="A Dask scheduler whose workers score, e.g. tcp://host:8786. Default: this process.")
    ] = None,
    exclude: ExcludeOption = None,
    exclude_from: ExcludeFromOption = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Score predictions by session and tier, in the competition's units, with ceilings and bootstrap intervals."""
    from flows.cli.summaries import print_depths, print_scores
    from flows.cli.tables import error_console, table_console
    from sensorium_data.scoring import NEURONS_FILE, PICTURE_FILE, Bootstrap
    from sensorium_data.store import open_store

    for kind, path in ((NEURONS_FILE, parquet), (PICTURE_FILE, picture)):
        if path is not None:
            # Before minutes of reading, not after them.
            kind.require_writable(path)
    how = Bootstrap(resamples, seed)
    excluded = excluded_trials(exclude, exclude_from)
    opened = open_store(store)
    if runs_as_flow(flow, "flows.evaluate"):
        from flows.evaluate import score as score_flow

        table = score_flow(predictions, store, truth, tier, frames, resamples, seed, count_jobs(jobs), dask, excluded)
    else:
        from sensorium_data.scoring import score_predictions

        with terminal_progress() as progress:
            table = score_predictions(
                predictions,
                opened,
                truth=truth,
                frames=frames,
                tiers=tier,
                bootstrap=how,
                jobs=count_jobs(jobs),
                dask=dask,
                progress=progress,
                exclude=excluded,
            )
    table.require_scores()
    if parquet is not None:
        table.write_parquet(parquet)
    if picture is not None:
        from sensorium_data.scoring import draw_scores

        draw_scores(table, opened, picture, truth=truth)
    for path in filter(None, (parquet, picture)):
        error_console().print(f"{path}: written", soft_wrap=True)
    if as_json:
        print_lines(table.to_json())
        return EXIT_DONE
    print_scores(table_console(), table)
    if by_depth:
        print_depths(table_console(), table)
    for note in table.notes:
        error_console().print(f"note: {note}", markup=False, soft_wrap=True)
    for reason in table.unscored:
        error_console().print(f"not scored: {reason}", soft_wrap=True)
    for doubt in table.doubts:
        error_console().print(f"doubtful: {doubt}", soft_wrap=True)
    return EXIT_DONE


def leaderboard(
    *predictions: Annotated[str, Parameter(help="Two or more predictions stores.")],
    store: StoreOption,
    tier: ScoredTiersOption = None,
    truth: TruthOption = None,
    frames: FramesOption = "official",
    against: Annotated[
        Literal["best", "first"],
        Parameter(help="What differences are taken to: the best entry of each tier, or the one named first."),
    ] = "best",
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Compare several predictions on the same trials, with paired intervals of their differences."""
    from flows.cli.summaries import print_leaderboard
    from flows.cli.tables import error_console, table_console
    from sensorium_data.scoring import Bootstrap

    how = Bootstrap(resamples, seed)
    if runs_as_flow(flow, "flows.evaluate"):
        from flows.evaluate import leaderboard as leaderboard_flow

        board = leaderboard_flow(
            list(predictions), store, truth, tier, frames, against, resamples, seed, count_jobs(jobs)
        )
    else:
        from sensorium_data.scoring import compare_predictions

        with terminal_progress() as progress:
            board = compare_predictions(
                predictions,
                store,
                truth=truth,
                frames=frames,
                tiers=tier,
                reference=against,
                bootstrap=how,
                jobs=count_jobs(jobs),
                progress=progress,
            )
    if as_json:
        print_lines(board.to_json())
        return EXIT_DONE
    print_leaderboard(table_console(), board)
    for reason in next(iter(board.entries.values())).unscored:
        error_console().print(f"not scored: {reason}", soft_wrap=True)
    return EXIT_DONE
