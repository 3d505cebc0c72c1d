"""A Prefect server on this machine, with or without workers: all of it ends with this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import NoReturn
from urllib.request import urlopen

from flows.lab.loopback import bypass_proxies_for_loopback, describe_route
from flows.lab.server_record import SERVER_MODULE
from flows.training import bound_command
from sensorium_data.errors import SensoriumError, UsageError

__all__ = [
    "EMBEDDED",
    "LocalServer",
    "ServerError",
    "default_home",
    "listen",
    "read_last_line",
    "require_free_port",
    "run_server",
    "server_environment",
    "start_server",
    "start_worker",
    "wait_for_end",
]

#: Settings of a server for commands: nobody looks at its pages, and no worker asks it for runs.
EMBEDDED: Mapping[str, str] = MappingProxyType(
    {f"PREFECT_SERVER_{name}_ENABLED": "false" for name in ("UI", "SERVICES_SCHEDULER", "SERVICES_LATE_RUNS")}
)

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_POLL_S = 0.2
# A worker first ends its flow runs, and Prefect gives each of those 30 s.
_STOP_TIMEOUT_S = 45.0


class ServerError(SensoriumError):
    """A server or worker did not start, or ended by itself."""


class LocalServer:
    """A server that runs or is about to. Made by :func:`run_server` and :func:`start_server`.

    Attributes
    ----------
    url : str
        Of its pages.
    home : Path
        Where its database and everybody's logs are.
    environment : dict
        What those who talk to it, and the server itself, have in their environment.
    processes : dict
        What was started, by name.
    """

    def __init__(self, home: Path, port: int, stack: ExitStack, settings: Mapping[str, str]) -> None:
        bypass_proxies_for_loopback()
        self.url = f"http://{_HOST}:{port}"
        self.home = home
        self.environment = {**server_environment(home, port), **settings}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = stack

    def start(self, name: str, command: list[str], *, descriptors: Sequence[int] = ()) -> None:
        """Start a program that ends with this one, and before those that were started earlier.

        Parameters
        ----------
        name : str
            What it is called here, and its log.
        command : list of str
            The program and its arguments.
        descriptors : sequence of int
            What it inherits.
        """
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 (our own)
                bound_command(*command),
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=descriptors,
                # Ctrl-C is for this process, which then ends the others in order.
                start_new_session=True,
            )
        self.processes[name] = process
        self._stack.callback(_stop, process)

    def log(self, name: str) -> Path:
        """Return the file that a program writes its log into."""
        return self.home / f"{name.replace(' ', '-')}.log"

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises
        ------
        ServerError
            If it has ended, or takes longer than a very slow machine.
        """
        url = f"{self.url}/api/health"
        give_up_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            self.require_running()
            try:
                urlopen(url, timeout=5).close()  # noqa: S310 (loopback, http)
            except OSError as error:
                if time.monotonic() > give_up_s:
                    raise ServerError(
                        "the server does not answer",
                        path=self.log("server"),
                        found=f"{error} at {url}, {describe_route(url)} for {_START_TIMEOUT_S:.0f} s",
                        remedy="read its log",
                    ) from error
                time.sleep(_POLL_S)
            else:
                return

    def require_running(self) -> None:
        """Check that all that was started runs.

        Raises
        ------
        ServerError
            If something has ended; its last line is told.
        """
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise ServerError(
                    f"the {name} has ended",
                    path=self.log(name),
                    found=f"status {process.returncode}: {read_last_line(self.log(name))}",
                    remedy="read its log, and start again",
                )


@contextmanager
def run_server(home: Path, port: int) -> Iterator[LocalServer]:
    """Run a server on loopback while the block runs.

    Parameters
    ----------
    home : Path
        Where its database and the logs go.
    port : int
        Its port; 0 for one that nobody has.

    Raises
    ------
    UsageError
        If the port is taken.
    ServerError
        If the server does not start.
    """
    with start_server(home, port) as server:
        server.wait_until_healthy()
        yield server


@contextmanager
def start_server(home: Path, port: int, *, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[LocalServer]:
    """Like :func:`run_server`, but the block begins before the server answers.

    Parameters
    ----------
    home, port
        As :func:`run_server` takes them.
    settings : mapping of str to str
        Prefect's settings, by the names of their environment variables.

    Raises
    ------
    UsageError
        If the port is taken.
    """
    with ExitStack() as stack:
        with listen(port) as listener:
            home.mkdir(parents=True, exist_ok=True)
            server = LocalServer(home, listener.getsockname()[1], stack, settings)
            command = [sys.executable, "-m", SERVER_MODULE, str(listener.fileno())]
            server.start("server", command, descriptors=[listener.fileno()])
        yield server


def start_worker(server: LocalServer, pool: str) -> None:
    """Start a worker for a pool."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    server.start(f"{pool} worker", command)


def wait_for_end(server: LocalServer, *, tick: Callable[[float], None] = time.sleep) -> NoReturn:
    """Wait until somebody asks this process to end, or something of the server ends by itself.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C or SIGTERM.
    ServerError
        If the server or a worker has ended.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    while True:
        server.require_running()
        tick(_POLL_S)


def default_home() -> Path:
    """Return the folder that Prefect keeps its database in unless it is told otherwise."""
    return Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def server_environment(home: Path, port: int) -> dict[str, str]:
    """Return what a server, and those who talk to it, have in their environment.

    Parameters
    ----------
    home : Path
        Where its database and the logs are.
    port : int
        On loopback.
    """
    url = f"http://{_HOST}:{port}/api"
    return {
        "PREFECT_HOME": str(home.absolute()),
        "PREFECT_PROFILES_PATH": str(home.absolute() / "profiles.toml"),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_API_HOST": _HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # In memory, the leases would be forgotten by a restart, and the slots of the limit `gpu` taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "DO_NOT_TRACK": "1",
    }


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback, for a server to take over.

    Parameters
    ----------
    port : int
        Its port; 0 for one that nobody has.

    Raises
    ------
    UsageError
        If somebody else listens there.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(
            "the server cannot have this port",
            found=f"{_HOST}:{port}, {error}",
            remedy="end what listens there, or take another: --port 4201",
        ) from error
    return listener


def require_free_port(port: int) -> None:
    """Check that a server can have a port.

    Raises
    ------
    UsageError
        If somebody listens there.
    """
    listen(port).close()


def read_last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Whatever is left of its session goes with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
