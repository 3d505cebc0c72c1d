"""What a lasting server says of itself: a file in its home that it holds locked for as long as it runs.

The kernel ends the lock with the server, so a record without a lock is one of a server that is gone. A second file is
locked by those who use the server, all of them together: the server ends only if it gets that lock for itself, and
whoever has a part in it need not fear that the server ends meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sensorium_data.files import close_locked, read_regular, try_lock

__all__ = ["SERVER_MODULE", "STATUS_PATH", "ServerFiles", "ServerRecord", "digest_settings", "identify"]

#: The module whose process is a server.
SERVER_MODULE = "flows.lab.server_process"

#: Where a lasting server answers with its record, besides what Prefect answers.
STATUS_PATH = "/sensorium/server"

_FORMAT = 1
_MAX_SIZE_BYTES = 65_536
# How Prefect writes lines is no reason for another server.
_OF_NO_MATTER = ("PREFECT_LOGGING_",)


@dataclass(frozen=True)
class ServerRecord:
    """A lasting server.

    Attributes
    ----------
    pid : int
        Its process.
    identity : str
        From :func:`identify`: another process may have got the number since.
    started_s : float
        When it was started, in seconds since 1970.
    port : int
        On loopback.
    home : str
        Where its database and log are.
    prefect : str
        The version of Prefect.
    settings : str
        From :func:`digest_settings`.
    token : str
        Says that whatever answers at the port is this very server.
    idle_s : float
        After so long without use it ends.
    format : int
        Of the record itself.
    """

    pid: int
    identity: str
    started_s: float
    port: int
    home: str
    prefect: str
    settings: str
    token: str
    idle_s: float
    format: int = _FORMAT

    def to_json(self) -> bytes:
        """Return the record as it is stored."""
        return json.dumps(asdict(self)).encode()

    def is_process(self) -> bool:
        """Whether the process of the record is the one that wrote it, and this user's."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            is_ours = process.uids().real == os.getuid() and SERVER_MODULE in process.cmdline()
            return is_ours and identify(self.pid) == self.identity
        except (psutil.Error, OSError):
            return False

    @staticmethod
    def from_json(content: bytes) -> ServerRecord | None:
        """Return the record in a file, or None if there is none that can be read."""
        try:
            record = TypeAdapter(ServerRecord).validate_json(content)
        except ValidationError:
            return None
        return record if record.format == _FORMAT else None


@dataclass(frozen=True)
class ServerFiles:
    """The files of the lasting server of a home on this machine.

    Attributes
    ----------
    home : Path
        May be shared by several machines, each of which has a server of its own.
    """

    home: Path

    @property
    def record(self) -> Path:
        """Holds the record, and is locked by the server."""
        return self.home / f"server-{_machine()}.json"

    @property
    def users(self) -> Path:
        """Is locked by those who use the server, or by the server when it ends."""
        return self.home / f"server-{_machine()}.users"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    def open_record(self) -> int:
        """Open the record's file, and make it if it is not there."""
        return _open(self.record)

    def open_users(self) -> int:
        """Open the users' file, and make it if it is not there."""
        return _open(self.users)

    def read(self) -> ServerRecord | None:
        """Return the record of the server that runs, or of one that ran, or None."""
        try:
            return ServerRecord.from_json(read_regular(self.record)[:_MAX_SIZE_BYTES])
        except FileNotFoundError:
            return None

    def is_held(self) -> bool:
        """Whether a server runs, or is just being started."""
        if not self.record.exists():
            return False
        descriptor = self.open_record()
        try:
            return not try_lock(descriptor, self.record)
        finally:
            close_locked(descriptor)


def identify(pid: int) -> str:
    """Return what tells a process from others that have or had its number: when it began.

    Raises
    ------
    psutil.Error, OSError
        If there is no such process.
    """
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        # In ticks since the machine was started, which do not change when its clock is set.
        return status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    import psutil

    return str(psutil.Process(pid).create_time())


def digest_settings(environment: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return a digest of what a server is started with, apart from what it is given for itself.

    Parameters
    ----------
    environment : mapping of str to str
        Of the process that starts it.
    own : mapping of str to str
        What each server is given anyway.
    """
    named = {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and name not in own and not name.startswith(_OF_NO_MATTER)
    }
    described = [sys.prefix, sys.version, version("fastapi"), version("sqlalchemy"), sorted(named.items())]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", platform.node()) or "machine"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
