"""A small simulated store in the user's folder for caches, for a first look, examples and tests.

It is made when it is first asked for and found again afterwards. Its folder is named after a digest of what its content
depends on, so another version of this software that would make another sample makes its own beside it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sensorium_data.errors import SensoriumError, StoreError, describe_os_error
from sensorium_data.files import (
    HAS_LOCKS,
    Leftover,
    LocalObjects,
    cache_folder,
    close_locked,
    digest_bytes,
    discard_folder,
    find_discarded,
    make_folder,
    measure_objects,
    open_locked,
    temporary_of,
    temporary_path,
    with_locked_file,
)
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.schema import SCHEMA_VERSION, SOURCE_NOT_KEPT
from sensorium_data.sessions import find_sessions

# Loaded where it is used: a command that only prints the path would wait for it.
if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SAMPLE_SESSIONS", "find_sample_leftovers", "load_sample", "sample_store"]

#: A pair: they saw the same movies. E, of the old release, has the responses to every stimulus, Gabor patches and dots
#: among them; those of I's test tiers are withheld.
SAMPLE_SESSIONS = ("E", "I")
_PARAMETERS: Mapping[str, Any] = MappingProxyType({"n_trials": 80, "n_neurons": 80, "seed": 0})
_PRECISION = "compact"

_FOLDER = "sample"
_STORE = "store"
_NAME = re.compile("[0-9a-f]{16}")
_REMEDY = "set XDG_CACHE_HOME to a folder that can be written"

_logger = logging.getLogger(__name__)


def load_sample(*, progress: Progress = ignore_progress) -> xr.DataTree:
    """Open two small simulated sessions that share movies, E of the old release and I of the new one.

    They have 80 trials and 80 neurons each: natural videos with repeats, Gabor patches, dots and random dots, running,
    pupil dilation and the pupil's position. The first call makes them, in about 15 seconds on two CPU cores. Later
    calls open them.

    Parameters
    ----------
    progress : Progress
        Told after each trial while the sample is made.

    Returns
    -------
    xarray.DataTree
        As :func:`sensorium_data.store.open_sessions` returns it.

    Raises
    ------
    StoreError
        As :func:`sample_store` does.

    Examples
    --------
    >>> tree = load_sample()  # doctest: +SKIP
    >>> session = next(iter(tree.children.values())).to_dataset()  # doctest: +SKIP
    >>> session.sensorium.plot_trial(0)  # doctest: +SKIP
    """
    from sensorium_data.store import open_sessions

    return open_sessions(sample_store(progress=progress))


def sample_store(*, progress: Progress = ignore_progress) -> str:
    """Return the path of the sample's store, for functions and commands that take a store.

    The sample is made in ``sensorium/sample`` in the user's folder for caches, or where that cannot be written, in the
    temporary folder of the machine; a warning is logged then. It takes about 220 MB, and 600 MB more while it is made.
    It appears under its name when it is whole. Processes that ask for it at once make it once. A sample that lost
    files is made again. The truth of the simulation lies in the folder ``truth`` beside the store.

    Parameters
    ----------
    progress : Progress
        Told after each trial while the sample is made.

    Returns
    -------
    str
        Path of the store's root.

    Raises
    ------
    StoreError
        If the sample can be written in neither place, or the disk is full.
    """
    name = _name_sample()
    folder = _find_cache() / name
    if not (_is_private(folder.parent) and _is_whole(folder)):
        root = _choose_root(folder.parent)
        folder = root / name
        _make_once(folder, progress)
    return str(folder / _STORE)


def find_sample_leftovers() -> Iterator[Leftover]:
    """Yield samples in the user's folder for caches that another version made, and what killed processes left there."""
    root = _find_cache()
    current = _name_sample()
    yield from find_discarded(root)
    for folder in sorted(root.glob("*")) + sorted(root.glob(".*.tmp")):
        unfinished = temporary_of(folder.name)
        name = unfinished or folder.name
        is_other = name != current or unfinished is not None
        if not _NAME.fullmatch(name) or not is_other or not folder.is_dir() or folder.is_symlink():
            continue
        yield Leftover(
            kind="sample" if unfinished is None else "unfinished sample",
            place=str(folder),
            why="another version of this software made it" if unfinished is None else "its making was interrupted",
            measure=partial(measure_objects, LocalObjects(folder)),
            access=with_locked_file(_lock_path(root / name), "it is being made"),
            discard=partial(_discard, folder),
        )


def _name_sample() -> str:
    """Return the digest of all that decides what is in the sample."""
    from sensorium_data.ingest import CONVERTER_VERSION
    from sensorium_data.simulation import SIMULATOR_VERSION

    content = {
        **_PARAMETERS,
        "sessions": SAMPLE_SESSIONS,
        "precision": _PRECISION,
        "source": _describe_source(),
        "simulator": SIMULATOR_VERSION,
        "converter": CONVERTER_VERSION,
        "schema": SCHEMA_VERSION,
    }
    return digest_bytes(json.dumps(content, sort_keys=True).encode())[:16]


def _describe_source() -> str:
    """Return what its sessions say of their archives, which are deleted after they were converted."""
    options = "--trials {n_trials} --neurons {n_neurons} --seed {seed}".format(**_PARAMETERS)
    return f"{SOURCE_NOT_KEPT}: sensorium simulate DIR --sessions {' '.join(SAMPLE_SESSIONS)} {options}"


def _find_cache() -> Path:
    try:
        return cache_folder(_FOLDER)
    except RuntimeError:  # the user has no home
        return _temporary_root()


def _temporary_root() -> Path:
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir(), f"sensorium-sample{user}")


def _choose_root(cache: Path) -> Path:
    """Return the first folder that can be written: the cache, or one in the machine's temporary folder."""
    reasons = []
    for root in dict.fromkeys((cache, _temporary_root())):
        try:
            make_folder(root)
            with tempfile.TemporaryFile(dir=root):
                pass
            if root != cache or cache == _temporary_root():
                _require_own(root)
        except OSError as error:
            reasons.append(f"{root}: {describe_os_error(error)}")
            continue
        if reasons:
            _logger.warning("the sample cannot be kept in %s; it is kept in %s", reasons[0], root)
        return root
    raise StoreError("the sample cannot be written anywhere", found="; ".join(reasons), remedy=_REMEDY)


def _is_private(root: Path) -> bool:
    """Whether no other user can have made what lies in a folder for samples; in the temporary folder they may have."""
    if root != _temporary_root():
        return True
    try:
        _require_own(root)
    except OSError:
        return False
    return True


def _require_own(folder: Path) -> None:
    """Refuse a folder that another user made, and keep others from this one: anybody may write to the temporary folder.

    Raises
    ------
    OSError
        If it is another user's, no folder, or not there.
    """
    status = folder.lstat()
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not stat.S_ISDIR(status.st_mode) or not is_own:
        raise PermissionError(1, "it belongs to another user, or is no folder", os.fspath(folder))
    folder.chmod(0o700)


def _make_once(folder: Path, progress: Progress) -> None:
    """Make the sample unless another process has done so meanwhile."""
    try:
        with _hold(folder):
            if _is_whole(folder):
                return
            _delete_unfinished(folder)
            if folder.exists() or folder.is_symlink():
                discard_folder(folder, folder.parent)
            work = temporary_path(folder)
            try:
                _make(work, progress)
                work.rename(folder)
            finally:
                _discard(work)
    except OSError as error:
        raise StoreError(
            "the sample cannot be made",
            path=error.filename or folder,
            found=describe_os_error(error),
            remedy=f"check the space and the permissions there, or {_REMEDY}",
        ) from error


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    path = _lock_path(folder)
    descriptor = open_locked(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    try:
        yield
    finally:
        close_locked(descriptor)


def _delete_unfinished(folder: Path) -> None:
    """Delete what killed processes left. The caller holds the lock, where there are locks."""
    if not HAS_LOCKS:
        return
    for entry in sorted(folder.parent.iterdir()):
        if temporary_of(entry.name) == folder.name:
            _discard(entry)


def _discard(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        discard_folder(folder, folder.parent)


def _make(work: Path, progress: Progress) -> None:
    from sensorium_data.ingest import ingest_sessions
    from sensorium_data.movies import link_movies
    from sensorium_data.simulation import simulate
    from sensorium_data.store import Precision

    sessions = find_sessions(SAMPLE_SESSIONS)
    archives, store = work / "archives", work / _STORE
    simulate(archives, sessions=sessions, **_PARAMETERS, jobs=2, progress=progress)
    report = ingest_sessions(
        sessions,
        str(store),
        sources=[str(archives)],
        source_name=_describe_source(),
        precision=Precision(_PRECISION),
        jobs=2,
        progress=progress,
    )
    report.raise_failures()
    link_movies(str(store), progress=progress)
    (archives / "truth").rename(work / "truth")
    discard_folder(archives, work)


def _is_whole(folder: Path) -> bool:
    """Whether the sample is there and no file of its store is missing or of another size."""
    from sensorium_data.store import open_store

    if not folder.is_dir():
        return False
    try:
        store = open_store(str(folder / _STORE))
        # The root lists them for readers that cannot list folders.
        if not store.sessions == store.listed == find_sessions(SAMPLE_SESSIONS):
            return False
        for session in store.sessions:
            group = LocalObjects(folder / _STORE / store.group(session))
            if any(group.size(key) != one.size_bytes for key, one in store.ledger(session).objects.items()):
                return False
        _ = store.links
    except (SensoriumError, OSError):
        return False
    return True
