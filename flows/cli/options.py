"""What the commands share: their options, exit statuses, and what they print."""

from __future__ import annotations

import gc
import importlib
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token, convert

from sensorium_data.errors import UsageError
from sensorium_data.machine import bound_jobs, count_cores
from sensorium_data.visible_text import make_lines_visible, make_visible

if TYPE_CHECKING:
    from flows.lab import LastingServer, LocalServer

__all__ = [
    "EXIT_DONE",
    "EXIT_UNUSABLE",
    "EXIT_WRONG",
    "LOCAL_ONLY",
    "DeviceName",
    "ExcludeFromOption",
    "ExcludeOption",
    "FlowOption",
    "FramesName",
    "JobsOption",
    "JsonOption",
    "ListOption",
    "NanOption",
    "NoLockOption",
    "SourceOption",
    "StoreArgument",
    "StoreOption",
    "TrustCodeOption",
    "WholeNumber",
    "check_jobs",
    "complain",
    "count_jobs",
    "excluded_trials",
    "key_values",
    "print_json",
    "print_lines",
    "runs_as_flow",
    "say",
    "terminal_progress",
]

EXIT_DONE = 0
EXIT_WRONG = 1
EXIT_UNUSABLE = 2

#: As :data:`sensorium_data.frames.FramesProfile`, which takes pyarrow to import.
FramesName = Literal["official", "50-298", "51-299"]
#: As :data:`flows.training.Device`, which takes the settings of all models to import.
DeviceName = Literal["auto", "cpu", "cuda"]


def _read_whole(kind: Any, tokens: Sequence[Token]) -> Any:
    # cyclopts itself rounds 1.5 to 2.
    if any("." in token.value for token in tokens):
        raise ValueError(f'"{tokens[0].value}" is not a whole number')
    return convert(kind, tokens)


#: Of every option that is a number of things.
WholeNumber = Parameter(converter=_read_whole)
StoreArgument = Annotated[str, Parameter(help="Root of the session stores.")]
StoreOption = Annotated[str, Parameter(name="--store", help="Root of the session stores: a folder or fsspec URL.")]
SourceOption = Annotated[
    list[str] | None,
    Parameter(
        name="--source",
        consume_multiple=True,
        negative="",
        help="Where archives or unpacked folders are: folders or URLs, tried in this order. Default: GIN.",
    ),
]
JobsOption = Annotated[
    int | None,
    WholeNumber,
    Parameter(name="--jobs", help="Trials worked on at the same time. Default: one a CPU core."),
]
FlowOption = Annotated[
    bool,
    Parameter(
        name="--flow",
        negative="",
        help="Run as a Prefect flow on the embedded server. A server named by PREFECT_API_URL is used without asking.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    Parameter(
        name="--exclude",
        consume_multiple=True,
        negative="",
        help="Trials to leave out, as SESSION:TRIAL with commas between, e.g. F:17,F:23. Default: none.",
    ),
]
ExcludeFromOption = Annotated[
    list[str] | None,
    Parameter(
        name="--exclude-from",
        negative="",
        help="File of trials to leave out, one SESSION:TRIAL a line; # begins a comment. Default: none.",
    ),
]
NanOption = Annotated[
    str | None,
    Parameter(
        name="--nan",
        help="Trials with NaN in behavior or pupil center: refuse; interpolate:N fills gaps of up to N frames; "
        "drop-trial leaves them out.",
    ),
]
TrustCodeOption = Annotated[
    bool,
    Parameter(
        name="--trust-code",
        negative="",
        help="Run the code that runs keep, of models that you have not trained on this machine. Look at it first.",
    ),
]
JsonOption = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]
NoLockOption = Annotated[
    bool,
    Parameter(
        name="--no-lock",
        negative="",
        help="Lock nothing in object stores, for those that cannot be locked. Nothing then keeps two machines apart.",
    ),
]
ListOption = Parameter(consume_multiple=True, negative="")


def _require_local(_type: object, value: object) -> None:
    """Refuse a URL where a path is wanted: it would become a folder `s3:`."""
    # A Path has lost a slash.
    if value is not None and re.match(r"[a-z][a-z0-9+.-]+:/(?!/?$)", str(value)):
        raise UsageError("this has to be a path on this machine", found=str(value), remedy="name a file or folder here")


#: Of what is read or written on this machine alone.
LOCAL_ONLY = Parameter(validator=_require_local)


def terminal_progress() -> Any:
    from flows.cli.tables import error_console
    from flows.reporting import show_progress

    return show_progress(error_console())


def check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs", found=jobs, expected="a number from 1 up")


def count_jobs(jobs: int | None) -> int:
    from flows.settings import Settings

    check_jobs(jobs)
    chosen = jobs or Settings().jobs
    return bound_jobs(count_cores()) if chosen is None else bound_jobs(chosen, warn=complain)


def runs_as_flow(asked: bool, module: str) -> bool:
    """Whether to run a flow of a module, with the embedded server running if no server is named."""
    from flows.lab import require_server, server_is_configured

    if server_is_configured():
        require_server()
        return True
    if asked:
        server = _start_server()
        # Nothing that is imported is garbage, and looking for some takes a tenth of the time.
        gc.disable()
        importlib.import_module(module)
        gc.freeze()
        gc.enable()
        server.wait_until_healthy()
    return asked


def _start_server() -> LastingServer | LocalServer:
    from flows.lab import ServerError, start_embedded_server, use_lasting_server
    from flows.settings import Settings

    minutes = Settings().keep_server_minutes
    if minutes:
        try:
            server = use_lasting_server(idle_s=60 * minutes)
        except ServerError as error:
            complain(str(error), "; a server starts that ends with this command")
        else:
            if server.is_new:
                say(f"→ a Prefect server starts; it stays for other commands, until {minutes:g} min without any")
            return server
    return start_embedded_server()


def key_values(settings: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise UsageError("--set", found=repr(setting), expected="key=value", remedy="e.g. --set max_epochs=3")
        pairs[key] = value
    return pairs


def excluded_trials(entries: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """Return the trials that the command line and its files leave out, each once; names are checked here."""
    from sensorium_data.store import format_exclusions, parse_exclusions, read_exclusions

    from_files = [entry for path in files or () for entry in read_exclusions(path)]
    return list(format_exclusions(parse_exclusions([*(entries or ()), *from_files])))


def complain(message: str, hint: str = "") -> None:
    say(f"sensorium: {message}{hint}")


def say(line: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{make_visible(line)}\n")


def print_json(value: object) -> None:
    print_lines(json.dumps(value, indent=2, default=str))


def print_lines(text: str) -> None:
    """Write a text of several lines, such as JSON, to standard output."""
    sys.stdout.write(f"{make_lines_visible(text)}\n")
