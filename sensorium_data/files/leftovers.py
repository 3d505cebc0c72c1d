"""What interrupted work left behind: what it is, whether anybody works on it, and how it is deleted.

Two things keep something from being deleted: somebody holds its lock, or it was written not long ago. Locks are seen
where the file system has them, on one machine or over NFS. The time is looked at everywhere. It also protects what is
written from another machine, what lies in an object store, and work that somebody wants to continue tomorrow.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files.local_objects import LocalObjects
from sensorium_data.files.locks import HAS_LOCKS, close_locked, holder_of, lock_existing, lock_folder
from sensorium_data.files.object_failures import describe_failure
from sensorium_data.files.objects import Objects
from sensorium_data.files.removal import DISCARDED, remove_tree
from sensorium_data.progress import Progress, ignore_progress

__all__ = [
    "DEFAULT_AGE_DAYS",
    "Access",
    "CleanedItem",
    "Extent",
    "Hold",
    "Kept",
    "Leftover",
    "clean_up",
    "find_discarded",
    "measure_file",
    "measure_objects",
    "old_files",
    "temporary_file",
    "unless",
    "unlocked",
    "with_locked_file",
    "with_locked_folder",
]

#: How long ago something was written that is taken for abandoned.
DEFAULT_AGE_DAYS = 7.0

# What has no lock could be at work though it looks left behind.
_LEAST_AGE_WITHOUT_LOCK_DAYS = 1.0
_DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class Hold:
    """What the access to something found.

    Attributes
    ----------
    obstacle : str
        Why it must not be deleted, whatever its age, as a clause; empty if it may.
    is_exclusive : bool
        Whether nobody else can be at work on it. False where there are no locks, or locks of this machine alone.
    """

    obstacle: str = ""
    is_exclusive: bool = True


#: Keeps others away while its block runs. Told True, it changes nothing.
Access = Callable[[bool], AbstractContextManager[Hold]]


@dataclass(frozen=True)
class Extent:
    """How large something is, and when it was last written.

    Attributes
    ----------
    size_bytes : int
        Of all its files.
    modified_s : float or None
        When the newest of them was written, in seconds since the epoch; None if that is not known.
    """

    size_bytes: int
    modified_s: float | None


@dataclass(frozen=True)
class Leftover:
    """Something that may be deleted.

    Attributes
    ----------
    kind : str
        What it is, in a few words.
    place : str
        Its path or URL.
    why : str
        Why nobody needs it, as a clause.
    measure : callable
        Returns its :class:`Extent` as it is now; None if it is gone.
    access : Access
        Keeps others away.
    discard : callable
        Deletes it. A kill in the middle leaves nothing that could be taken for whole.
    is_certain : bool
        Its age does not matter: nobody can be at work on it if it is not locked.
    event : str
        What happened at the time that its extent gives, as a participle.
    """

    kind: str
    place: str
    why: str
    measure: Callable[[], Extent | None]
    access: Access
    discard: Callable[[], None]
    is_certain: bool = False
    event: str = "written"


@dataclass(frozen=True)
class Kept:
    """Something that is not deleted whatever its age.

    Attributes
    ----------
    kind : str
        What it is, in a few words.
    place : str
        Its path or URL.
    why : str
        Why it stays, as a clause.
    """

    kind: str
    place: str
    why: str


@dataclass(frozen=True)
class CleanedItem:
    """What became of something.

    Attributes
    ----------
    kind, place : str
        As :class:`Leftover` has them.
    size_bytes : int
        How large it was.
    removed : bool
        Whether it is deleted, or would be.
    why : str
        Why it is deleted, or why not.
    """

    kind: str
    place: str
    size_bytes: int
    removed: bool
    why: str


def clean_up(
    found: Iterable[Leftover | Kept],
    *,
    min_age_days: float = DEFAULT_AGE_DAYS,
    dry_run: bool = False,
    progress: Progress = ignore_progress,
) -> tuple[CleanedItem, ...]:
    """Delete what was left behind, if nobody works on it and it is old enough.

    Parameters
    ----------
    found : iterable of Leftover or Kept
        What was found.
    min_age_days : float
        How long ago it has to have been written. What no lock protects has to be a day old at least.
    dry_run : bool
        Delete nothing, and return what would be deleted.
    progress : Progress
        Told after each.

    Returns
    -------
    tuple of CleanedItem
        In the order of ``found``.

    Raises
    ------
    UsageError
        If the age is no number from 0 up.
    SensoriumError
        If something cannot be deleted.
    """
    if not min_age_days >= 0:
        raise UsageError("--older-than", found=min_age_days, expected="a number of days from 0 up")
    all_found = list(found)
    items = []
    for n_done, one in enumerate(all_found, start=1):
        if isinstance(one, Kept):
            items.append(CleanedItem(one.kind, one.place, 0, removed=False, why=one.why))
        elif (item := _clean(one, min_age_days, dry_run)) is not None:
            items.append(item)
        progress("clean", n_done, len(all_found))
    return tuple(items)


def _clean(leftover: Leftover, min_age_days: float, dry_run: bool) -> CleanedItem | None:
    def describe(extent: Extent, obstacle: str = "") -> CleanedItem:
        return CleanedItem(
            leftover.kind, leftover.place, extent.size_bytes, removed=not obstacle, why=obstacle or leftover.why
        )

    extent = leftover.measure()
    if extent is None:
        return None
    # Before anything is locked, which would make others wait.
    if young := _find_youth(leftover, extent, min_age_days):
        return describe(extent, young)
    with leftover.access(dry_run) as hold:
        # Somebody may have taken it up, and ended, since it was looked at.
        again = leftover.measure()
        if again is None:
            return None
        least_days = min_age_days if hold.is_exclusive else max(min_age_days, _LEAST_AGE_WITHOUT_LOCK_DAYS)
        obstacle = hold.obstacle or _find_youth(leftover, again, least_days)
        if not obstacle and not dry_run:
            try:
                leftover.discard()
            except OSError as error:
                raise describe_failure("deleted", leftover.place, error) from error
        return describe(again, obstacle)


def _find_youth(leftover: Leftover, extent: Extent, least_days: float) -> str:
    """Return why something is too young to be deleted; empty if it is not."""
    if leftover.is_certain:
        return ""
    if extent.modified_s is None:
        return f"nothing says when it was {leftover.event}"
    age_s = time.time() - extent.modified_s
    if age_s >= least_days * _DAY_S:
        return ""
    days = f"{least_days:g} {'day' if least_days == 1 else 'days'}"
    return f"{leftover.event} {_describe_age(age_s)} ago; it stays for {days}"


def _describe_age(age_s: float) -> str:
    for unit, seconds in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if age_s >= 2 * seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return "less than two minutes"


def measure_objects(objects: Objects) -> Extent | None:
    """Return the extent of everything under a root; None if nothing is there, or it cannot be listed."""
    statuses = objects.statuses()
    is_there = bool(statuses) or (isinstance(objects, LocalObjects) and objects.root.is_dir())
    if statuses is None or not is_there:
        return None
    times = [status.modified_s for status in statuses.values()]
    if isinstance(objects, LocalObjects):
        with contextlib.suppress(FileNotFoundError):
            times.append(objects.root.lstat().st_mtime)
    known = [time_s for time_s in times if time_s is not None]
    # If one is not known, it may be the newest.
    newest = max(known) if known and len(known) == len(times) else None
    return Extent(sum(status.size_bytes for status in statuses.values()), newest)


def measure_file(path: Path) -> Extent | None:
    """Return the extent of a file; None if it is gone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return Extent(status.st_size, status.st_mtime)


@contextlib.contextmanager
def unlocked(_dry_run: bool) -> Iterator[Hold]:
    """Keep nobody away: the access to what has no lock."""
    yield Hold(is_exclusive=False)


def unless(access: Access, find_obstacle: Callable[[], str]) -> Access:
    """Return an access that also asks, while others are kept away, whether something else is in the way."""

    @contextlib.contextmanager
    def ask(dry_run: bool) -> Iterator[Hold]:
        with access(dry_run) as hold:
            yield hold if hold.obstacle else Hold(find_obstacle(), hold.is_exclusive)

    return ask


def with_locked_folder(folder: Path, holder: str) -> Access:
    """Return the access to a folder that is locked by who works in it; ``holder`` says who, as a clause."""
    return _access(lambda: lock_folder(folder), holder)


def with_locked_file(path: Path, holder: str) -> Access:
    """Return the access to what is locked by a file; ``holder`` says who holds it, as a clause."""
    return _access(lambda: lock_existing(path), holder)


def _access(lock: Callable[[], int | None], holder: str) -> Access:
    @contextlib.contextmanager
    def access(_dry_run: bool) -> Iterator[Hold]:
        try:
            descriptor = lock()
        except BlockingIOError:
            yield Hold(holder)
            return
        except OSError as error:
            yield Hold(f"it cannot be locked: {describe_os_error(error)}")
            return
        try:
            yield Hold(is_exclusive=HAS_LOCKS and (descriptor is None or holder_of(descriptor) == descriptor))
        finally:
            if descriptor is not None:
                close_locked(descriptor)

    return access


def temporary_file(path: Path, access: Access = unlocked, *, kind: str = "temporary file") -> Leftover | Kept:
    """Return a file that was to get another name; what has such a name and is no file stays.

    Parameters
    ----------
    path : Path
        Where it is.
    access : Access
        Keeps its writers away; by default no lock does.
    kind : str
        What it is, in a few words.
    """
    if path.is_symlink() or not path.is_file():
        return Kept(kind, str(path), "it is no file")
    return Leftover(
        kind=kind,
        place=str(path),
        why="its writer was interrupted",
        measure=partial(measure_file, path),
        access=access,
        discard=partial(path.unlink, missing_ok=True),
    )


def old_files(kind: str, folder: Path, name: re.Pattern[str], *, why: str, min_age_days: float) -> Leftover:
    """Return the files of a folder for caches that were not written for some days, together.

    Parameters
    ----------
    kind : str
        What they are.
    folder : Path
        Where they are.
    name : re.Pattern
        What their paths, relative to the folder, match; whatever else lies there stays.
    why : str
        Why nobody needs them.
    min_age_days : float
        So long ago they were written, or used, at least.
    """

    def find() -> Iterator[tuple[Path, Extent]]:
        latest_s = time.time() - max(min_age_days, _LEAST_AGE_WITHOUT_LOCK_DAYS) * _DAY_S
        for path in sorted(folder.rglob("*")):
            if name.fullmatch(path.relative_to(folder).as_posix()) and path.is_file() and not path.is_symlink():
                extent = measure_file(path)
                if extent is not None and (extent.modified_s or 0) <= latest_s:
                    yield path, extent

    def measure() -> Extent | None:
        extents = [extent for _, extent in find()]
        return Extent(sum(one.size_bytes for one in extents), None) if extents else None

    def discard() -> None:
        for path, _ in find():
            path.unlink(missing_ok=True)

    return Leftover(kind, str(folder), why, measure, unlocked, discard, is_certain=True)


def find_discarded(folder: Path) -> Iterator[Leftover]:
    """Yield what an interrupted deletion left in a folder."""
    for path in sorted(folder.glob(".*.removed")):
        if DISCARDED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield Leftover(
                kind="half-deleted folder",
                place=str(path),
                why="its deletion was interrupted",
                measure=partial(measure_objects, LocalObjects(path)),
                access=unlocked,
                discard=partial(remove_tree, path),
                is_certain=True,
            )
