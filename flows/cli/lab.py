"""The commands for a Prefect server and its workers.

Prefect is imported by the commands that need it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, JsonOption, SourceOption, print_json
from sensorium_data.errors import UsageError
from sensorium_data.redaction import hide_secrets

__all__ = ["deploy", "ui"]

_POOLS = ("cpu", "gpu")

DeployedStore = Annotated[
    str | None,
    Parameter(name="--store", help="Root of the session stores of all deployments. Default: as prefect.yaml has it."),
]
DeployedOut = Annotated[
    str | None,
    Parameter(name="--out", help="Folder for predictions and submission zips. Default: as prefect.yaml has it."),
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
    notify: Annotated[
        str | None, Parameter(help="Webhook, e.g. Slack's, that is told when a run fails. Default: none is.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Put the deployments on the Prefect server of PREFECT_API_URL, with pools, GPU limit and an automation.

    May be repeated. Schedules that were switched on stay on.
    """
    from dataclasses import asdict

    from flows.lab import require_server, server_is_configured

    if not server_is_configured():
        raise UsageError(
            "no Prefect server is named",
            found="PREFECT_API_URL is not set",
            remedy="start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api, "
            "or run `sensorium ui`",
        )
    require_server()
    from flows.lab import deploy as deploy_flows
    from flows.lab import find_checkout, find_host, notify_of_failures

    if notify is not None:
        # Before the half minute that deploying takes, not after it.
        find_host(notify)
    done = deploy_flows(_parameters(store, out, runs, source), find_checkout())
    if notify is not None:
        done.append(notify_of_failures(notify))
    if as_json:
        print_json([asdict(one) for one in done])
        return EXIT_DONE
    from flows.cli.tables import print_next, print_table, table_console

    console = table_console()
    url = hide_secrets(os.environ["PREFECT_API_URL"])
    print_table(console, f"On the server {url}", [asdict(one) for one in done])
    commands = (
        *((f"start a worker for the pool {pool}", f"prefect worker start --pool {pool}") for pool in _POOLS),
        ("run something", "prefect deployment run pipeline/pipeline --watch"),
        ("switch a schedule on", "prefect deployment schedule ls ingest/ingest"),
    )
    print_next(console, [(purpose, f"PREFECT_API_URL={url} {command}") for purpose, command in commands])
    return EXIT_DONE


def ui(
    *,
    home: Annotated[
        Path | None,
        Parameter(help="Folder of Prefect's database and of the logs, e.g. demo/prefect. Default: Prefect's own."),
    ] = None,
    port: Annotated[int, Parameter(help="Port of the server, on loopback.")] = 4200,
    store: DeployedStore = None,
    out: DeployedOut = None,
    runs: DeployedRuns = None,
    source: SourceOption = None,
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
        deploy_flows(_parameters(store, out, runs, source), find_checkout())
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


def _parameters(store: str | None, out: str | None, runs: str | None, source: list[str] | None) -> dict[str, Any]:
    """Return the deployments' parameters that were given; deployed flows run elsewhere, so paths are made absolute."""
    given: dict[str, Any] = {"store": store, "out": out, "runs": runs}
    parameters: dict[str, Any] = {name: _absolute(value) for name, value in given.items() if value is not None}
    if source is not None:
        parameters["source"] = [_absolute(one) for one in source]
    return parameters


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())
