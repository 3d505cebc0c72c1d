"""The commands on models and predictions.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.command_options import (
    EXIT_DONE,
    FlowOption,
    JsonOption,
    ListOption,
    StoreOption,
    key_values,
    print_json,
    runs_as_flow,
    terminal_progress,
)
from sensorium_data.errors import UsageError

__all__ = ["predict", "score", "train"]


def train(
    preset: Annotated[
        str, Parameter(help="A model's name, e.g. factorized3d, or that with -debug for its small size.")
    ],
    *,
    store: StoreOption,
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions to train on. Default: all in the store.")
    ] = None,
    runs: Annotated[str | None, Parameter(help="Folder of training runs. Default: runs.")] = None,
    settings: Annotated[
        list[str] | None, ListOption, Parameter(name="--set", help="Settings to change, e.g. --set max_epochs=3.")
    ] = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train a model. A finished run of the same configuration on the same data is left alone."""
    from dataclasses import asdict

    from flows.progress import show_progress
    from flows.settings import Settings
    from flows.summaries import describe_epoch, read_summary
    from flows.tables import error_console, table_console
    from models.config import override
    from models.registry import get_preset
    from sensorium_data.sessions import find_sessions

    overrides = key_values(settings or [])
    config = override(get_preset(preset), overrides)
    names = None if sessions is None else [s.name for s in find_sessions(sessions)]
    runs = runs or Settings().runs
    if runs_as_flow(flow):
        from flows.train import train as train_flow

        report = train_flow(preset, store, names, runs, overrides)
    else:
        from models.training import train as train_model

        # One console for both: a line of another one would tear the bars.
        console = error_console()
        with show_progress(console) as progress:
            report = train_model(
                config,
                store,
                names,
                runs,
                progress=progress,
                on_epoch=lambda epoch: console.print(describe_epoch(epoch), markup=False),
            )
    if as_json:
        print_json(asdict(report))
    else:
        table_console().print(f"{report.run}: {report.status}", markup=False, soft_wrap=True)
        table_console().print(read_summary(report), markup=False)
    return EXIT_DONE


def predict(
    *run: Annotated[str, Parameter(help="Training runs; several make an ensemble by their mean.")],
    store: StoreOption,
    tier: Annotated[
        list[str], ListOption, Parameter(help="Tiers: oracle, live_test_main, …; test for the four test tiers; all.")
    ],
    out: Annotated[str, Parameter(help="The predictions store to write.")],
    flow: FlowOption = False,
) -> int:
    """Predict whole trials of some tiers into a predictions store."""
    from flows.tables import table_console
    from sensorium_data.sessions import Tier

    if not run:
        raise UsageError("no run named", expected="one training run or more", remedy="name the folders of the runs")
    chosen: set[Tier] = set()
    for name in tier:
        match name:
            case "all":
                chosen.update(Tier)
            case "test":
                chosen.update(one for one in Tier if one.is_test)
            case _:
                chosen.add(Tier.parse(name))
    tiers = [str(one) for one in Tier if one in chosen]
    if runs_as_flow(flow):
        from flows.evaluate import predict as predict_flow

        report = predict_flow(list(run), store, tiers, out)
    else:
        from models.prediction import predict as predict_tiers

        with terminal_progress() as progress:
            report = predict_tiers(list(run), store, tiers, out, progress=progress)
    table_console().print(
        f"{report.predictions}: {report.status}, {report.n_trials} trials", markup=False, soft_wrap=True
    )
    return EXIT_DONE


def score(
    predictions: Annotated[str, Parameter(help="The predictions store.")],
    *,
    store: StoreOption,
    truth: Annotated[
        str | None,
        Parameter(help="Truth of simulated sessions: scores withheld tiers, and the best possible score beside each."),
    ] = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Score predictions by session and tier, in the competition's units."""
    from flows.summaries import print_scores
    from flows.tables import error_console, table_console

    if runs_as_flow(flow):
        from flows.evaluate import score as score_flow

        table = score_flow(predictions, store, truth)
    else:
        from sensorium_data.scoring import score_predictions

        with terminal_progress() as progress:
            table = score_predictions(predictions, store, truth=truth, progress=progress)
    if as_json:
        sys.stdout.write(table.to_json() + "\n")
        return EXIT_DONE
    print_scores(table_console(), table)
    for reason in table.unscored:
        error_console().print(f"not scored: {reason}", markup=False, soft_wrap=True)
    return EXIT_DONE
