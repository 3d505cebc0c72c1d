"""Locks on object stores: an object that its holder renews, and that others take over when it no longer does.

The holder writes a new version of the object three times in each lease. Whoever finds the object watches it: if it
changes, the holder is alive. If it stays as it is over a whole lease, by the watcher's own clock, the holder is dead.
No two machines' clocks are compared. Everything is written under the condition that nobody else has written.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sensorium_data.errors import LockedError, StoreError, UnlockableError
from sensorium_data.files.json_document import parse_json
from sensorium_data.files.leftovers import Access, Hold
from sensorium_data.files.remote_failures import status_of
from sensorium_data.files.remote_objects import RemoteObjects

__all__ = ["LEASE_S", "Lease", "LockWatch", "hold_lease", "no_conditions", "with_lease"]

#: How long a holder's silence has to last before others take its lock.
LEASE_S = 60.0

_RENEWALS_A_LEASE = 3
# What somebody wrote there is not waited for any longer.
_LONGEST_LEASE_S = 600.0
_POLL_S = 1.0
_LONGEST_RELEASE_S = 10.0
_NOT_IMPLEMENTED = 501

_logger = logging.getLogger(__name__)

# The file systems and hosts that were seen to heed conditions.
_heeding: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Claim:
    """What a lock's object says: of its holder for people, and enough to know a dead process of the same machine."""

    owner: str
    host: str
    pid: int
    since: str
    lease_s: float
    process: str
    n_renewals: int = 0
    is_released: bool = False

    @classmethod
    def make(cls, lease_s: float) -> _Claim:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, now, lease_s, _identify_process(pid) or "")

    @classmethod
    def read(cls, data: bytes | None) -> _Claim | None:
        """Return what an object says; None if it cannot be read."""
        try:
            claim = parse_json(data or b"")
            return cls(
                str(claim["owner"]),
                str(claim["host"]),
                int(claim["pid"]),
                str(claim["since"]),
                min(max(0.0, float(claim["lease_s"])), _LONGEST_LEASE_S),
                str(claim["process"]),
                int(claim["n_renewals"]),
                bool(claim["is_released"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    def describe(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def is_alive(self) -> bool | None:
        """Whether the holder is alive, if it is a process that can be seen from here; else None."""
        own = _identify_process(os.getpid())
        if own is None or own.split()[:2] != self.process.split()[:2]:
            return None
        return _identify_process(self.pid) == self.process


class Lease:
    """A lock that this process holds, and renews in a thread until it is released.

    Parameters
    ----------
    objects : RemoteObjects
        Where the lock lies.
    key : str
        Its key.
    claim : _Claim
        What it says.
    tag : str
        The tag of the object that says so.
    """

    def __init__(self, objects: RemoteObjects, key: str, claim: _Claim, tag: str) -> None:
        self._objects = objects
        # A renewal that fails is not insisted on: the next one comes soon.
        self._impatient = RemoteObjects(objects.url, replace(objects.policy, n_attempts=1))
        self._key = key
        self._claim = claim
        self._tag = tag
        self._renewed_s = time.monotonic()
        self._lost: str | None = None
        self._is_released = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {key}", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise a :class:`LockedError` if somebody else has the lock.

        After an outage longer than the lease, the store is asked.
        """
        if self._lost is None and self._is_over():
            self._renew(self._objects)
        if self._lost is not None:
            raise LockedError(
                "the lock was lost",
                path=self._objects.locate(self._key),
                found=self._lost,
                expected=self._claim.describe(),
                remedy="run it again when nobody else works there: what is finished is kept",
            )

    def release(self) -> None:
        """Give the lock back; if the store cannot be reached, it ends by itself."""
        self._is_released.set()
        self._thread.join(_LONGEST_RELEASE_S)
        if self._lost is not None or self._thread.is_alive():
            return
        with contextlib.suppress(StoreError):
            # Some stores delete without looking at the condition: only while nobody can have taken the lock.
            if time.monotonic() - self._renewed_s < self._claim.lease_s / 2:
                try:
                    self._impatient.delete_if(self._key, self._tag)
                    return
                except StoreError:
                    pass  # Whoever must not delete may still write.
            self._impatient.write_if(self._key, replace(self._claim, is_released=True).to_bytes(), self._tag)

    def _is_over(self) -> bool:
        """Whether others may have taken the lock since the last renewal."""
        return time.monotonic() - self._renewed_s > self._claim.lease_s

    def _keep(self) -> None:
        interval_s = self._claim.lease_s / _RENEWALS_A_LEASE
        wait_s = interval_s
        while self._lost is None and not self._is_released.wait(wait_s):
            try:
                self._renew(self._impatient)
                wait_s = interval_s
            except StoreError as error:
                # Others may take the lock when the lease is over, and not before they have watched it as long.
                wait_s = interval_s / 4
                _logger.debug("%s", error)

    def _renew(self, objects: RemoteObjects) -> None:
        with self._lock:
            begun_s = time.monotonic()
            claim = replace(self._claim, n_renewals=self._claim.n_renewals + 1)
            tag = objects.write_if(self._key, claim.to_bytes(), self._tag)
            if tag is None:
                data, tag = objects.read_tagged(self._key)
                other = _Claim.read(data)
                if tag is None or other is None or other.owner != claim.owner:
                    self._lost = "no lock: somebody has deleted it" if other is None else other.describe()
                    return
                # A renewal whose answer did not come.
                claim = other
            self._claim, self._tag, self._renewed_s = claim, tag, begun_s


class LockWatch:
    """A lock of somebody else, watched until it is known whether its holder is alive.

    Parameters
    ----------
    objects : RemoteObjects
        Where the lock lies; an object store with conditions.
    key : str
        Its key.
    """

    def __init__(self, objects: RemoteObjects, key: str) -> None:
        self.objects = objects
        self.key = key
        self._tag: str | None = None
        self._since_s = 0.0

    def begin(self) -> bool:
        """Look at the lock, so that its lease is watched from now on; return whether what lies there is a lock."""
        data, self._tag = self.objects.read_tagged(self.key)
        self._since_s = time.monotonic()
        return _Claim.read(data) is not None

    def wait_for_end(
        self, problem: str, *, on_wait: Callable[[str], None] = lambda holder: None, owner: str = ""
    ) -> str | None:
        """Wait until nobody has the lock; nothing is written.

        Parameters
        ----------
        problem : str
            What it means that somebody has it, for the error.
        on_wait : callable, optional
            As :func:`hold_lease` takes it.
        owner : str
            Who asks: what it has written itself is nobody else's.

        Returns
        -------
        str or None
            The tag of the object that the dead holder left; None if there is none.

        Raises
        ------
        LockedError
            If somebody else has the lock, and is alive.
        """
        while True:
            data, tag = self.objects.read_tagged(self.key)
            if data is None or tag is None:
                return None
            other = _Claim.read(data)
            if other is not None and (other.is_released or other.owner == owner):
                return tag
            alive = None if other is None else other.is_alive
            is_renewed = self._tag is not None and tag != self._tag
            if other is not None and (alive or (is_renewed and alive is None)):
                raise LockedError(
                    problem,
                    path=self.objects.locate(self.key),
                    found=other.describe(),
                    remedy="wait until it has finished, and run this again",
                )
            if tag != self._tag:
                self._tag, self._since_s = tag, time.monotonic()
            lease_s = LEASE_S if other is None else other.lease_s
            if alive is False or time.monotonic() - self._since_s >= lease_s:
                return tag
            on_wait("an unknown process" if other is None else other.describe())
            time.sleep(min(_POLL_S, lease_s / 10))


@contextlib.contextmanager
def hold_lease(
    objects: RemoteObjects,
    key: str,
    problem: str,
    *,
    on_wait: Callable[[str], None] = lambda holder: None,
    watch: LockWatch | None = None,
) -> Iterator[Lease]:
    """Hold the lock that an object is.

    A holder that may be dead is watched for as long as its lease lasts.

    Parameters
    ----------
    objects : RemoteObjects
        Where the lock lies; an object store with conditions.
    key : str
        Its key.
    problem : str
        What it means that somebody else has it, for the error: another process does this or that.
    on_wait : callable, optional
        Told of the holder, every second while it is watched. What it raises ends the wait.
    watch : LockWatch, optional
        Since when the lock has been watched; by default it is from now on, if there is one.

    Raises
    ------
    LockedError
        If somebody else has the lock, and is alive.
    UnlockableError
        If the store does not heed conditions.
    StoreError
        If it cannot be reached.
    """
    lease = _take(objects, key, problem, on_wait, watch)
    try:
        yield lease
    finally:
        lease.release()


def with_lease(watch: LockWatch, holder: str) -> Access:
    """Return the access to what a lock on an object store protects; ``holder`` says who may hold it, as a clause.

    Nothing is exclusive in a store that does not heed conditions.
    """

    @contextlib.contextmanager
    def access(dry_run: bool) -> Iterator[Hold]:
        with contextlib.ExitStack() as stack:
            hold = Hold()
            try:
                if dry_run:
                    watch.wait_for_end(holder)
                else:
                    stack.enter_context(hold_lease(watch.objects, watch.key, holder, watch=watch))
            except LockedError:
                hold = Hold(holder)
            except UnlockableError:
                hold = Hold(is_exclusive=False)
            yield hold

    return access


def no_conditions(objects: RemoteObjects) -> UnlockableError:
    """Return the error that a store cannot be locked."""
    return UnlockableError(
        "this store cannot be locked: it does not write under conditions",
        path=objects.url,
        expected="conditional writes, as S3 has them",
        remedy="see that no other process writes there, and add --no-lock",
    )


def _take(
    objects: RemoteObjects, key: str, problem: str, on_wait: Callable[[str], None], watch: LockWatch | None
) -> Lease:
    claim = _Claim.make(LEASE_S)
    is_there = watch is not None
    watch = watch or LockWatch(objects, key)
    while True:
        if not is_there:
            own = _write_first(objects, key, claim)
            if own is not None:
                return Lease(objects, key, claim, own)
        # The answer to the first write may not have come.
        tag = watch.wait_for_end(problem, on_wait=on_wait, owner=claim.owner)
        is_there = tag is not None
        if tag is not None:
            own = objects.write_if(key, claim.to_bytes(), tag)
            if own is not None:
                return Lease(objects, key, claim, own)


def _write_first(objects: RemoteObjects, key: str, claim: _Claim) -> str | None:
    """Write the lock if there is none, and return its tag."""
    try:
        tag = objects.write_if(key, claim.to_bytes(), None)
    except StoreError as error:
        if error.__cause__ is not None and status_of(error.__cause__) == _NOT_IMPLEMENTED:
            raise no_conditions(objects) from error
        raise
    if tag is not None:
        try:
            _require_conditions(objects, key, claim.to_bytes())
        except StoreError:
            with contextlib.suppress(StoreError):
                objects.delete(key)
            raise
    return tag


def _require_conditions(objects: RemoteObjects, key: str, data: bytes) -> None:
    """Raise a :class:`StoreError` if a store would write an object that is there under the condition that it is not."""
    host = objects.url.partition("://")[2].partition("/")[0]
    heeding = _heeding.setdefault(objects.file_system, set())
    if host in heeding:
        return
    if objects.write_if(key, data, None) is not None:
        raise no_conditions(objects)
    heeding.add(host)


def _identify_process(pid: int) -> str | None:
    """Return what no other process has at any time: the boot, the namespace, the number and the start; None elsewhere.

    None, too, if there is no such process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Behind the name of the program, which may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else f"{boot} {os.readlink('/proc/self/ns/pid')} {pid} {fields[18]}"
    except (OSError, IndexError):
        return None
