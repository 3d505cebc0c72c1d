"""The command for the Prefect server that stays between commands with ``--flow``."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, EXIT_WRONG, LOCAL_ONLY, JsonOption, print_json
from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from flows.lab import ServerRecord

__all__ = ["server"]


def server(
    action: Annotated[Literal["status", "start", "stop"], Parameter(help="What to do.")],
    /,
    *,
    home: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(help="Folder of Prefect's database and of the log. Default: Prefect's own."),
    ] = None,
    minutes: Annotated[
        float | None,
        Parameter(
            help="With start: how long the server stays without use. Default: SENSORIUM_KEEP_SERVER_MINUTES, or 10."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show, start or stop the Prefect server that stays for commands with --flow.

    Such a command starts it by itself, and it ends when it was not used for some minutes. Exit status of `status`: 1 if
    no server runs.
    """
    from flows.lab import find_lasting_server, stop_lasting_server

    if minutes is not None and (action != "start" or not 0 < minutes < math.inf):
        raise UsageError("--minutes", found=f"{minutes:g} with {action}", expected="a number above 0, with start")
    if action == "start":
        _start(home, minutes)
    found = stop_lasting_server(home) if action == "stop" else find_lasting_server(home)
    if as_json:
        print_json(None if found is None else _describe(found))
    else:
        _print(action, found)
    return EXIT_WRONG if action == "status" and found is None else EXIT_DONE


def _start(home: Path | None, minutes: float | None) -> None:
    from flows.lab import join_lasting_server
    from flows.settings import Settings

    chosen = minutes or Settings().keep_server_minutes
    if not chosen:
        raise UsageError(
            "a server would end at once",
            found="SENSORIUM_KEEP_SERVER_MINUTES is 0",
            remedy="say how long it stays: --minutes 10",
        )
    joined = join_lasting_server(home, idle_s=60 * chosen)
    joined.wait_until_healthy()
    joined.leave()


def _describe(found: ServerRecord) -> dict[str, object]:
    from flows.lab import is_used

    return {
        "url": f"http://127.0.0.1:{found.port}",
        "home": found.home,
        "process": found.pid,
        "prefect": found.prefect,
        "since": datetime.fromtimestamp(found.started_s).astimezone().isoformat(timespec="seconds"),
        "in use": is_used(found),
        "minutes": found.idle_s / 60,
    }


def _print(action: str, found: ServerRecord | None) -> None:
    from flows.cli.tables import print_table, table_console

    console = table_console()
    if found is None:
        console.print("no server runs", highlight=False)
    elif action == "stop":
        console.print(f"process {found.pid} has ended", highlight=False)
    else:
        print_table(console, "Server for commands with --flow", [_describe(found)])
