"""Making sessions visible: the lock, the root's list of sessions, and the comparison with a ledger."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sensorium_data.errors import StoreError
from sensorium_data.ledger import Ledger
from sensorium_data.objects import LocalObjects, Objects
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS, Session
from sensorium_data.template import METADATA_KEY, consolidate

try:
    import fcntl
except ImportError:  # Windows has none; keeping two conversions of one session apart is the user's part there.
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "PARTIAL_FOLDER",
    "ROOT_LOCK",
    "ROOT_TITLE",
    "exclusive_access",
    "find_object_problems",
    "is_locked",
    "list_root",
    "publish_root",
]

#: Where unfinished work lies, under the store's root.
PARTIAL_FOLDER = ".partial"
#: The lock that whoever rewrites the root's metadata holds.
ROOT_LOCK = "root"
#: The title of a store's root group.
ROOT_TITLE = "SENSORIUM 2023 session stores"


@contextlib.contextmanager
def exclusive_access(objects: Objects, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock ``name`` of a local store, waiting for whoever holds it.

    The lock dies with its process. Other file systems have none: there, one writer at a time is the user's part.

    Parameters
    ----------
    objects : Objects
        The store's root.
    name : str
        What is locked.
    on_wait : callable, optional
        Called once if someone else holds the lock.

    Raises
    ------
    StoreError
        If the lock cannot be made.
    """
    if not isinstance(objects, LocalObjects) or fcntl is None:
        yield
        return
    path = _lock_path(objects, name)
    try:
        descriptor = _acquire_lock(path, on_wait)
    except OSError as error:
        raise StoreError(
            "the store cannot be written",
            path=path,
            found=error.strerror,
            remedy="check the path and its permissions, and that its file system supports locks",
        ) from error
    try:
        yield
    finally:
        # Deleted while it is held: who waits for it notices and takes the new file.
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def is_locked(objects: Objects, name: str) -> bool:
    """Whether someone holds the lock ``name``, or was killed while holding it."""
    return isinstance(objects, LocalObjects) and _lock_path(objects, name).exists()


def publish_root(objects: Objects) -> None:
    """Write the root group's metadata, which list the published sessions and carry all their arrays'.

    Readers that cannot list a folder (HTTP) find the sessions by them.
    """
    with exclusive_access(objects, ROOT_LOCK):
        if isinstance(objects, LocalObjects):
            objects.clear_unfinished(METADATA_KEY)
        data = _compose_root(objects)
        try:
            if objects.read(METADATA_KEY) == data:
                return
        except FileNotFoundError:
            pass
        objects.write(METADATA_KEY, data)


def list_root(objects: Objects) -> tuple[Session, ...]:
    """Return the sessions that the root group's metadata list; none if there are no metadata."""
    try:
        listed = json.loads(objects.read(METADATA_KEY))["attributes"]["sessions"]
        return tuple(s for s in SESSIONS.values() if s.name in listed)
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "no session store here",
            path=objects.locate(METADATA_KEY),
            found=f"unreadable metadata ({error})",
            remedy="give the root of a store that `sensorium ingest` made",
        ) from error


def find_object_problems(
    group: Objects, ledger: Ledger, *, jobs: int, progress: Progress = ignore_progress, label: str = "verify"
) -> dict[str, str]:
    """Return what is wrong with each object of a group that is not as the ledger says."""

    def check(key: str) -> str | None:
        try:
            data = group.read(key)
        except FileNotFoundError:
            return "missing"
        return ledger.objects[key].find_difference(data)

    problems: dict[str, str] = {}
    keys = sorted(ledger.objects)
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="verify")
    try:
        # Only digests and clauses come back, so the queue holds no data.
        for n_done, (key, problem) in enumerate(zip(keys, pool.map(check, keys), strict=True), start=1):
            if problem is not None:
                problems[key] = problem
            progress(label, n_done, len(keys))
    finally:
        pool.shutdown(cancel_futures=True)
    return problems


def _compose_root(objects: Objects) -> bytes:
    nodes: dict[str, Mapping[str, Any]] = {}
    published = []
    for session in SESSIONS.values():
        key = f"{session.name}/{METADATA_KEY}"
        try:
            metadata = json.loads(objects.read(key))
            below = metadata.pop("consolidated_metadata")["metadata"]
            nodes[session.name] = metadata
            nodes.update({f"{session.name}/{path}": node for path, node in below.items()})
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                "the store is damaged",
                session=session,
                path=objects.locate(key),
                found=f"unreadable metadata ({error})",
                remedy="move this session's folder out of the store, and run it again",
            ) from error
        published.append(session.name)
    return consolidate({"title": ROOT_TITLE, "sessions": published}, nodes)


def _lock_path(objects: LocalObjects, name: str) -> Path:
    return objects.root / PARTIAL_FOLDER / f"{name}.lock"


def _acquire_lock(path: Path, on_wait: Callable[[], None] | None) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # Whoever held the lock has just removed its folder.
        except FileExistsError:
            # The folder was there, and was removed before mkdir looked whether it is one.
            if path.parent.exists() and not path.parent.is_dir():
                raise
            continue
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
