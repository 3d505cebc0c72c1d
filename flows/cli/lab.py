"""The commands for a Prefect server and its workers.

Prefect is imported by the commands that need it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    EXIT_WRONG,
    LOCAL_ONLY,
    JsonOption,
    SourceOption,
    WholeNumber,
    complain,
    print_json,
    print_lines,
    say,
)
from sensorium_data.errors import StoreError, UsageError
from sensorium_data.redaction import hide_secrets

__all__ = ["deploy", "ui", "watch"]

_POOLS = ("cpu", "gpu")
# Without it, workers end when their server has been away for 20 minutes, and their runs with them.
_PATIENT = "PREFECT_CLIENT_MAX_RETRIES=8"

DeployedStore = Annotated[
    str | None,
    Parameter(name="--store", help="Root of the session stores of all deployments. Default: as prefect.yaml has it."),
]
DeployedOut = Annotated[
    str | None,
    Parameter(name="--out", help="Folder for predictions and submission zips. Default: as prefect.yaml has it."),
]
DeployedSessions = Annotated[
    list[str] | None,
    Parameter(
        name="--sessions",
        consume_multiple=True,
        negative="",
        help="Sessions of all deployments that take some: aliases, full names, new, old or all. Default: as "
        "prefect.yaml has them.",
    ),
]
DeployedPreset = Annotated[
    str | None,
    Parameter(
        name="--preset", help="The model of train, train-ensemble and pipeline. Default: as prefect.yaml has it."
    ),
]
DeployedRuns = Annotated[
    str | None, Parameter(name="--runs", help="Folder of training runs. Default: the workers' SENSORIUM_RUNS, or runs.")
]


def deploy(
    *,
    store: DeployedStore = None,
    out: DeployedOut = None,
    runs: DeployedRuns = None,
    source: SourceOption = None,
    sessions: DeployedSessions = None,
    preset: DeployedPreset = None,
    notify: Annotated[
        str | None, Parameter(help="Webhook, e.g. Slack's, that is told when a run fails. Default: none is.")
    ] = None,
    file: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(
            help="What describes the deployments, e.g. deploy/prefect.docker.yaml. Default: prefect.yaml of the clone."
        ),
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Change nothing; show what would change on the server.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Put the deployments on the Prefect server of PREFECT_API_URL, with pools, GPU limit and an automation.

    May be repeated. It changes what prefect.yaml describes and what is named here. What people set on the server, such
    as parameters and schedules, stays.
    """
    from dataclasses import asdict

    _require_configured_server()
    from flows.lab import deploy as deploy_flows
    from flows.lab import find_checkout, find_host
    from sensorium_data.files import open_objects

    if notify is not None:
        # Before the half minute that deploying takes, not after it.
        find_host(notify)
    for url in filter(None, (store, out, runs)):
        try:
            open_objects(url)
        except StoreError as error:
            # The workers may have a client that this machine lacks.
            if error.__cause__ is None:
                raise
    parameters = _parameters(store, out, runs, source, sessions, preset)
    deployment = deploy_flows(parameters, find_checkout(), file=file, notify=notify, dry_run=dry_run)
    done, changes = list(deployment.done), [asdict(one) for one in deployment.changes]
    for line in deployment.kept:
        say(line)
    if as_json:
        print_json(changes if dry_run else [asdict(one) for one in done])
        return EXIT_DONE
    from flows.cli.tables import print_next, print_table, table_console

    console = table_console()
    url = hide_secrets(os.environ["PREFECT_API_URL"])
    if not dry_run:
        made = {(one.kind, one.name) for one in done if one.status == "made"}
        changes = [change for change in changes if (change["kind"], change["name"]) not in made]
    if changes:
        print_table(console, f"{'Would change' if dry_run else 'Changed'} on the server {url}", changes, n_keys=2)
    elif dry_run:
        console.print(f"nothing would change on the server {url}", soft_wrap=True)
    if dry_run:
        return EXIT_DONE
    print_table(console, f"On the server {url}", [asdict(one) for one in done], n_keys=2)
    commands = (
        *((f"start a worker for the pool {pool}", f"{_PATIENT} prefect worker start --pool {pool}") for pool in _POOLS),
        ("run something", "prefect deployment run pipeline/pipeline"),
        ("watch what the newest run does", "sensorium watch pipeline/pipeline"),
        ("see the schedules of a deployment", "prefect deployment schedule ls ingest/ingest"),
        ("switch all schedules on", "prefect deployment schedule resume --all"),
    )
    print_next(console, [(purpose, f"PREFECT_API_URL={url} {command}") for purpose, command in commands])
    return EXIT_DONE


def watch(
    run: Annotated[
        str, Parameter(help="A run's id, or flow and name of a deployment, e.g. pipeline/pipeline: its newest run.")
    ],
) -> int:
    """Show what a run on the Prefect server of PREFECT_API_URL does, until it ends. Exit status 1 if it fails.

    A server that is restarted or away in between is waited for. Ctrl-C ends the watching, and not the run.
    """
    _require_configured_server()
    from flows.watching import RunObserver

    ended = RunObserver(run, print_lines).wait()
    if ended.state is not None and ended.state.is_completed():
        return EXIT_DONE
    name, message = ("unknown", "") if ended.state is None else (ended.state.name, ended.state.message or "")
    complain(f"{ended.name} ended as {name}{f': {hide_secrets(message)}' if message else ''}")
    return EXIT_WRONG


def _require_configured_server() -> None:
    from flows.lab import require_server, server_is_configured

    if not server_is_configured():
        raise UsageError(
            "no Prefect server is named",
            found="PREFECT_API_URL is not set",
            remedy="start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api, "
            "or run `sensorium ui`",
        )
    require_server()


def ui(
    *,
    home: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(help="Folder of Prefect's database and of the logs, e.g. demo/prefect. Default: Prefect's own."),
    ] = None,
    port: Annotated[int, WholeNumber, Parameter(help="Port of the server, on loopback.")] = 4200,
    store: DeployedStore = None,
    out: DeployedOut = None,
    runs: DeployedRuns = None,
    source: SourceOption = None,
    sessions: DeployedSessions = None,
    preset: DeployedPreset = None,
) -> int:
    """Run a Prefect server with workers on this machine, with everything deployed; Ctrl-C ends them all."""
    from flows.cli.tables import error_console, table_console
    from flows.lab import default_home, require_free_port, run_server, start_worker, wait_for_end

    require_free_port(port)
    folder = home or default_home()
    console = error_console()

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    say(f"→ start the server, its log in {folder / 'server.log'}")
    with run_server(folder, port) as server:
        # Prefect reads its settings once, when it is imported.
        os.environ.update(server.environment)
        from flows.lab import deploy as deploy_flows
        from flows.lab import find_checkout

        say("→ deploy the flows")
        deploy_flows(_parameters(store, out, runs, source, sessions, preset), find_checkout())
        for pool in _POOLS:
            say(f"→ start a worker for the pool {pool}, its log in {server.log(f'{pool} worker')}")
            start_worker(server, pool)
        try:
            table_console().print(server.url, highlight=False)
            say(f"for commands in another terminal: export PREFECT_API_URL={server.url}/api")
            say("Ctrl-C ends the server and the workers")
            wait_for_end(server)
        except KeyboardInterrupt:
            say("→ end the workers and the server")
    return EXIT_DONE


def _parameters(
    store: str | None,
    out: str | None,
    runs: str | None,
    source: list[str] | None,
    sessions: list[str] | None,
    preset: str | None,
) -> dict[str, Any]:
    """Return the deployments' parameters that were given; deployed flows run elsewhere, so paths are made absolute."""
    given: dict[str, Any] = {"store": store, "out": out, "runs": runs}
    parameters: dict[str, Any] = {name: _absolute(value) for name, value in given.items() if value is not None}
    if runs is not None:
        # Of flows whose parameter runs is a list of runs: where ensembles are.
        parameters["runs_folder"] = parameters["runs"]
    if sessions is not None:
        from sensorium_data.sessions import find_sessions

        # Wrong names are refused here, and not by tomorrow's run.
        find_sessions(sessions)
        parameters["sessions"] = sessions
    if preset is not None:
        from models.registry import get_preset

        get_preset(preset)
        parameters["preset"] = _absolute(preset) if ".py:" in preset else preset
    if source is not None:
        parameters["source"] = [_absolute(one) for one in source]
    return parameters


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())
