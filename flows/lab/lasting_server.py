"""A Prefect server that stays for the commands that follow, as long as some do.

A command starts it if there is none, and the others use it. It ends by itself. Nothing is asked of a process before it
has been seen that it is the server: its record is locked by it, and it answers with what the record says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.lab.local_server import (
    EMBEDDED,
    ServerError,
    default_home,
    listen,
    read_last_line,
    server_environment,
)
from flows.lab.loopback import bypass_proxies_for_loopback
from flows.lab.server_record import SERVER_MODULE, STATUS_PATH, ServerFiles, ServerRecord, digest_settings
from flows.training import package_environment
from sensorium_data.errors import UsageError
from sensorium_data.files import close_locked, holder_of, make_folder, try_lock, try_lock_shared

__all__ = ["LastingServer", "find_lasting_server", "is_used", "join_lasting_server", "stop_lasting_server"]

_ANSWER_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 180.0
_RECORD_TIMEOUT_S = 10.0
# A server that was asked to end first answers what it was asked.
_STOP_TIMEOUT_S = 20.0
_DYING_S = 2.0
_POLL_S = 0.05


class _EndedError(ServerError):
    """A server has ended that was there."""


class LastingServer:
    """A server that this process uses. Made by :func:`join_lasting_server`; used until :meth:`leave`, or the end.

    Attributes
    ----------
    url : str
        Where it is.
    home : Path
        Where its database and its log are.
    is_new : bool
        Whether it was started for this process, from the beginning or in the place of one that had ended.
    environment : dict
        What those who talk to it have in their environment.
    """

    def __init__(
        self, files: ServerFiles, port: int, users: int, *, start_another: Callable[[], None] | None = None
    ) -> None:
        self.home = files.home
        self.url = f"http://127.0.0.1:{port}"
        self.is_new = start_another is None
        self.environment = {**server_environment(files.home, port), **EMBEDDED}
        self._files = files
        self._port = port
        self._users = users
        self._start_another = start_another

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        A server that was found while it was dying is replaced once, by one at the same URL.

        Raises
        ------
        ServerError
            If it has ended, or takes longer than a very slow machine.
        """
        try:
            self._wait_for_answer()
        except _EndedError:
            if self._start_another is None:
                raise
            self._start_another()
            self.is_new, self._start_another = True, None
            self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        give_up_s = time.monotonic() + _START_TIMEOUT_S
        log = self._files.log
        while True:
            record = self._files.read()
            is_there = self._files.is_held()
            works = _ask(record) if is_there and record is not None else None
            if works and record is not None and record.port == self._port:
                return
            if not is_there:
                raise _EndedError("the server has ended", path=log, found=read_last_line(log), remedy="start again")
            if works is not None:
                raise ServerError(
                    "another server has taken its place" if works else "the server has lost its database",
                    path=log,
                    found=read_last_line(log),
                    remedy="start again",
                )
            if time.monotonic() > give_up_s:
                raise ServerError(
                    "the server does not answer",
                    path=log,
                    found=f"nothing at {self.url} for {_START_TIMEOUT_S:.0f} s",
                    remedy="read its log",
                )
            time.sleep(_POLL_S)

    def leave(self) -> None:
        """Let the server end once nobody else uses it."""
        close_locked(self._users)


def join_lasting_server(home: Path | None = None, *, idle_s: float) -> LastingServer:
    """Return the server of a home that stays between commands; one is started if there is none.

    A server of another Prefect or with other settings, or one that does not answer or has lost its database, is ended
    and replaced, unless somebody uses it.

    Parameters
    ----------
    home : Path, optional
        Where its database is; Prefect's own default if not given.
    idle_s : float
        After so long without use a server that is started here ends.

    Returns
    -------
    LastingServer
        It may still be starting: see :meth:`LastingServer.wait_until_healthy`.

    Raises
    ------
    ServerError
        If a server does not fit and cannot be ended, or a new one does not start.
    """
    bypass_proxies_for_loopback()
    files = ServerFiles((home or default_home()).resolve())
    make_folder(files.home)
    settings = digest_settings(os.environ, {**server_environment(files.home, 0), **EMBEDDED})
    while True:
        users = _take_part(files)
        try:
            lock = files.open_record()
            try:
                if try_lock(lock, files.record):
                    return LastingServer(files, _start(files, lock, idle_s, settings), users)
            finally:
                # The server has inherited the lock.
                close_locked(lock)
            record = _wait_for_record(files)
            if record is not None and _fits(record, files, settings):
                start_another = partial(_start_unless_held, files, idle_s, settings, record.port)
                return LastingServer(files, record.port, users, start_another=start_another)
        except BaseException:
            close_locked(users)
            raise
        close_locked(users)
        _end(files, record)


def find_lasting_server(home: Path | None = None) -> ServerRecord | None:
    """Return what the server of a home says of itself if one runs, whether it answers or not, else None."""
    files = ServerFiles((home or default_home()).resolve())
    return _wait_for_record(files) if files.is_held() else None


def is_used(record: ServerRecord) -> bool:
    """Whether a command uses a server at this moment."""
    files = ServerFiles(Path(record.home))
    users = files.open_users()
    try:
        return not try_lock(users, files.users)
    finally:
        close_locked(users)


def stop_lasting_server(home: Path | None = None) -> ServerRecord | None:
    """End the server of a home, and return what it was; None if there is none.

    Raises
    ------
    ServerError
        If a command uses it, or the process cannot be told to be the server.
    """
    files = ServerFiles((home or default_home()).resolve())
    if not files.is_held():
        return None
    record = _wait_for_record(files)
    _end(files, record)
    return record


def _take_part(files: ServerFiles) -> int:
    """Lock the users' file together with others, waiting for a server that is ending."""
    give_up_s = time.monotonic() + _STOP_TIMEOUT_S + _RECORD_TIMEOUT_S
    while True:
        users = files.open_users()
        if try_lock_shared(users, files.users):
            return users
        close_locked(users)
        if time.monotonic() > give_up_s:
            raise ServerError(
                "the server that is ending takes too long",
                path=files.log,
                remedy="read its log, and try again",
            )
        time.sleep(_POLL_S)


def _start_unless_held(files: ServerFiles, idle_s: float, settings: str, port: int) -> None:
    """Start a server at a port, unless another command has just started one."""
    lock = files.open_record()
    try:
        if try_lock(lock, files.record):
            _start(files, lock, idle_s, settings, port)
    except UsageError as error:
        raise ServerError(
            "the server has ended, and something else has its port now",
            path=files.log,
            found=error.found,
            remedy="start again",
        ) from error
    finally:
        # The server has inherited the lock.
        close_locked(lock)


def _start(files: ServerFiles, lock: int, idle_s: float, settings: str, wanted_port: int = 0) -> int:
    """Start a server that has the record's lock, and return its port; 0 for any that is free."""
    os.ftruncate(lock, 0)
    with listen(wanted_port) as listener, files.log.open("ab") as log:
        port: int = listener.getsockname()[1]
        held = holder_of(lock)
        command = [sys.executable, "-m", SERVER_MODULE, str(listener.fileno())]
        # This process ends at once, and leaves the server behind.
        done = subprocess.run(  # noqa: S603 (our own)
            [*command, str(held), str(idle_s), settings],
            env={**package_environment(), **server_environment(files.home, port), **EMBEDDED},
            pass_fds=[listener.fileno(), held],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=files.home,
            start_new_session=True,
            check=False,
        )
    if done.returncode:
        raise ServerError("the server does not start", path=files.log, found=read_last_line(files.log))
    return port


def _wait_for_record(files: ServerFiles) -> ServerRecord | None:
    """Return the record of a server that holds its lock; it is written some moments after the lock is taken."""
    give_up_s = time.monotonic() + _RECORD_TIMEOUT_S
    while True:
        record = files.read()
        if record is not None or not files.is_held() or time.monotonic() > give_up_s:
            return record
        time.sleep(_POLL_S)


def _fits(record: ServerRecord, files: ServerFiles, settings: str) -> bool:
    """Whether a server is what this process would start, and works or is starting."""
    is_alike = record.home == str(files.home) and record.prefect == version("prefect") and record.settings == settings
    if not is_alike or not record.is_process():
        return False
    works = _ask(record)
    return time.time() - record.started_s < _START_TIMEOUT_S if works is None else works


def _ask(record: ServerRecord) -> bool | None:
    """Return whether the very server answers and has its database; None if nothing answers."""
    url = f"http://127.0.0.1:{record.port}{STATUS_PATH}"
    try:
        with urlopen(url, timeout=_ANSWER_TIMEOUT_S) as answer:
            return ServerRecord.from_json(answer.read()) == record
    except HTTPError as error:
        error.close()
        return False
    except OSError:
        return None


def _end(files: ServerFiles, record: ServerRecord | None) -> None:
    """End a server that nobody uses."""
    with _sole_use(files) as is_sole:
        if not is_sole:
            raise ServerError(
                "the server is in use",
                path=files.home,
                found="a command that runs a flow on it",
                remedy="wait until that is done, or end it",
            )
        for number in (signal.SIGTERM, signal.SIGKILL):
            # One that is dying is no such process any more, and holds its locks some moments longer.
            is_process = record is not None and record.is_process()
            if is_process and record is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, number)
            if _wait_until_free(files, _STOP_TIMEOUT_S if is_process else _DYING_S):
                return
            if not is_process:
                break
        raise ServerError(
            "this file is locked by a process that cannot be told to be the server, or that does not end",
            path=files.record,
            found="no record" if record is None else f"a record of process {record.pid}",
            remedy="end the process that has the file open (see `lsof`)",
        )


def _wait_until_free(files: ServerFiles, timeout_s: float) -> bool:
    """Wait until no server holds the lock of its record, and return whether that is so."""
    give_up_s = time.monotonic() + timeout_s
    while files.is_held():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(_POLL_S)
    return True


@contextmanager
def _sole_use(files: ServerFiles) -> Iterator[bool]:
    """Keep others from using a server while the block runs, and tell whether nobody does."""
    users = files.open_users()
    try:
        yield try_lock(users, files.users)
    finally:
        close_locked(users)
