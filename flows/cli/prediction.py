"""The commands on predictions.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

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
    WholeNumber,
    count_jobs,
    excluded_trials,
    print_json,
    print_lines,
    runs_as_flow,
    terminal_progress,
)
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.predictions import parse_weights

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["leaderboard", "predict", "score"]

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
ResamplesOption = Annotated[int, WholeNumber, Parameter(help="Bootstrap resamples behind each interval, 100 or more.")]
SeedOption = Annotated[int, WholeNumber, Parameter(help="Seed of the resamples.")]


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
        list[str] | None,
        ListOption,
        Parameter(
            help="An ensemble of `train --seeds` or `--folds all`, by its name, instead of runs. Several, such as two "
            "stages, predict the mean of their means."
        ),
    ] = None,
    runs: Annotated[
        str | None, Parameter(help="Folder of the runs of the ensemble, or any fsspec URL. Default: runs.")
    ] = None,
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions to predict. Default: all that the first run knows.")
    ] = None,
    weights: Annotated[
        str | None, Parameter(help="How much each run or ensemble counts, e.g. 1,2. Default: all the same.")
    ] = None,
    members: Annotated[
        str | None,
        Parameter(
            help="Folder to keep each run's own predictions in, for an ensemble. What is finished there is taken from "
            "there. Default: none are kept."
        ),
    ] = None,
    precision: Annotated[
        Literal["32-true", "bf16-mixed"],
        Parameter(
            help="Numbers that models compute with. bf16-mixed is refused where it changes the correlation by 0.001."
        ),
    ] = "32-true",
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
    groups = _find_groups(run, ensemble or [], runs)
    chosen = [run for group in groups for run in group]
    shares = _share(groups, parse_weights(weights, len(groups)))
    excluded = excluded_trials(exclude, exclude_from)
    if runs_as_flow(flow, "flows.evaluate"):
        from flows.evaluate import predict as predict_flow

        report = predict_flow(
            chosen, store, tiers, out, sessions, shares, device, excluded, nan, trust_code, no_lock, members, precision
        )
    else:
        from models.prediction import predict as predict_tiers

        with terminal_progress() as progress:
            report = predict_tiers(
                chosen,
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
                precision=precision,
                members=members,
            )
    if as_json:
        print_json(asdict(report))
    else:
        predicted = f", {count_things(report.n_trials, 'trial')}" if report.status != "already done" else ""
        table_console().print(f"{report.predictions}: {report.status}{predicted}", soft_wrap=True)
        for note in report.notes:
            table_console().print(note, markup=False, soft_wrap=True)
    return EXIT_DONE


def _find_groups(named: Sequence[str], ensembles: Sequence[str], runs: str | None) -> list[tuple[str, ...]]:
    """Return the runs that predict: each one that is named by itself, or the members of each ensemble."""
    if not ensembles:
        if not named:
            raise UsageError(
                "no run named",
                expected="one training run or more",
                remedy="name the folders of the runs, or an ensemble with --ensemble",
            )
        if runs is not None:
            raise UsageError("--runs is the folder of an ensemble's runs", found=runs, remedy="add --ensemble")
        return [(one,) for one in named]
    if named:
        raise UsageError(
            "runs and an ensemble exclude each other",
            found=f"{', '.join(named)} and --ensemble {' '.join(ensembles)}",
            remedy="name one or the other",
        )
    from flows.settings import Settings
    from models.runs import find_members

    return [find_members(runs or Settings().runs, name) for name in ensembles]


def _share(groups: Sequence[tuple[str, ...]], weights: Sequence[float] | None) -> list[float] | None:
    """Return how much each run counts, where weights are those of groups, of whatever size, or of single runs."""
    if len({len(group) for group in groups}) == 1 and weights is None:
        return None
    if weights is not None and (len(groups) == 1 or len(weights) != len(groups)):
        # Of the runs one by one, or of a number that is told to be wrong.
        return list(weights)
    by_group = [1.0] * len(groups) if weights is None else weights
    return [weight / len(group) for group, weight in zip(groups, by_group, strict=True) for _ in group]


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
