"""The command for the Prefect server that stays between commands with ``--flow``."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, EXIT_WRONG, LOCAL_ONLY, JsonOption, print_json
from sensorium_data.commands import quote_command
from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from flows.lab import ServerRecord

__all__ = ["server"]


def server(
    action: Annotated[
        Literal["status", "start", "stop"],
        Parameter(
            help="status shows the server; exit status 1 if none runs. start starts one if none runs. stop ends it, "
            "unless a command uses it."
        ),
    ],
    /,
    *,
    home: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(help="Folder of Prefect's database and of the log; each has its server. Default: Prefect's own."),
    ] = None,
    minutes: Annotated[
        float | None,
        Parameter(
            help="With start: after so many minutes without use the server ends. Default: "
            "SENSORIUM_KEEP_SERVER_MINUTES, or 10."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show, start or stop the Prefect server that stays between commands with --flow.

    Nobody has to start it: the first command with --flow does. Nobody has to stop it either: it ends by itself when no
    command has used it for some minutes.
    """
    from flows.lab import find_lasting_server, stop_lasting_server

    if minutes is not None:
        _require_sensible(minutes, action, home)
    found, is_new = None, False
    if action == "start":
        is_new = _start(home, minutes)
    found = stop_lasting_server(home) if action == "stop" else find_lasting_server(home)
    if as_json:
        print_json(None if found is None else _describe(found))
    else:
        _print(action, found, home, is_new=is_new)
    return EXIT_WRONG if action == "status" and found is None else EXIT_DONE


def _require_sensible(minutes: float, action: str, home: Path | None) -> None:
    if action != "start":
        raise UsageError(
            "--minutes is an option of start: how long the server stays without use",
            found=f"--minutes {minutes:g} with {action}",
            remedy=f"leave it out: {_command(action, home)}",
        )
    if not 0 < minutes < math.inf:
        raise UsageError(
            "--minutes, how long the server stays without use",
            found=f"{minutes:g}",
            expected="a number above 0",
            remedy=f"e.g. {_command('start', home, '--minutes', '10')}",
        )


def _start(home: Path | None, minutes: float | None) -> bool:
    """Have a server run, and return whether it is new."""
    from flows.lab import find_lasting_server, join_lasting_server
    from flows.settings import Settings

    chosen = minutes or Settings().keep_server_minutes
    if not chosen:
        raise UsageError(
            "a server would end at once",
            found="SENSORIUM_KEEP_SERVER_MINUTES is 0",
            remedy=f"say how long it stays: {_command('start', home, '--minutes', '10')}",
        )
    joined = join_lasting_server(home, idle_s=60 * chosen)
    joined.wait_until_healthy()
    found = find_lasting_server(home)
    joined.leave()
    if minutes is not None and not joined.is_new and found is not None and found.idle_s != 60 * minutes:
        raise UsageError(
            "a server runs already, and how long it stays was said when it started",
            found=f"{found.idle_s / 60:g} minutes without use",
            expected=f"{minutes:g}",
            remedy=f"end it first: {_command('stop', home)}",
        )
    return joined.is_new


def _command(action: str, home: Path | None, *options: str) -> str:
    return quote_command("server", action, *(() if home is None else ("--home", home)), *options)


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


def _print(action: str, found: ServerRecord | None, home: Path | None, *, is_new: bool) -> None:
    from flows.cli.tables import print_table, table_console

    console = table_console()
    if found is None:
        rest = "" if action == "stop" else f"; {_command('start', home)} starts one, and so does a command with --flow"
        console.print(f"no server runs{rest}", highlight=False, soft_wrap=True)
    elif action == "stop":
        console.print(f"the server has ended (process {found.pid})", highlight=False, soft_wrap=True)
    else:
        if action == "start":
            console.print("a server has started" if is_new else "a server runs already", highlight=False)
        headings = {name: name for name in _describe(found)} | {"minutes": "minutes without use until it ends"}
        print_table(console, "Server for commands with --flow", [_describe(found)], columns=headings)
