"""The folder that runs are kept in: on this machine, or behind a URL, with a copy here to work in.

Behind a URL nothing can be renamed. A finished run's ``model.json`` is sent last there and a checkpoint's record after
its tensors, so that whoever finds these finds the rest too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Protocol

from models.runs.files import (
    CHECKPOINTS_FOLDER,
    IMPORTED_FILE,
    MODEL_FILE,
    REQUIRED_FILES,
    RESTORE,
    SHOWN_FILES,
    UNFINISHED,
    UNFINISHED_RUN,
)
from models.sources import CODE_FOLDER
from sensorium_data.counting import name_some
from sensorium_data.errors import RunError
from sensorium_data.files import (
    MOVE_FOREIGN,
    LocalObjects,
    RemoteObjects,
    cache_folder,
    hold_place,
    open_objects,
    read_regular,
    refuse_owned_folder,
)
from sensorium_data.names import find_name_problem
from sensorium_data.predictions import read_run_ledger
from sensorium_data.store import LEDGER_KEY, lock_key

__all__ = ["LocalRuns", "RemoteRuns", "RunsFolder", "open_runs", "split_run"]


class RunsFolder(Protocol):
    """Runs by their names."""

    @property
    def url(self) -> str:
        """The folder, as the user gave it."""

    def path(self, name: str) -> Path:
        """Return where a run is, or will be, on this machine."""

    def locate(self, name: str) -> str:
        """Return a run's path or URL."""

    def receive(self, name: str) -> bool:
        """Have a finished run on this machine as it is in the folder, and return whether it is there."""

    def require_own(self, name: str) -> None:
        """Raise a :class:`RunError` if behind a URL somebody else's files have the names of a run's.

        On this machine, that is found where the run is trained.
        """

    def has_checkpoint(self, name: str) -> bool:
        """Whether an interrupted training left a checkpoint."""

    def receive_unfinished(self, name: str) -> None:
        """Have on this machine what an interrupted attempt left; called by the one who may write there."""

    def has_unfinished(self, name: str) -> bool:
        """Whether an interrupted attempt left anything."""

    def read_unfinished(self, preset: str, files: tuple[str, ...]) -> Iterator[tuple[str, list[bytes] | None]]:
        """Yield the folder's name and some files of each unfinished run of a preset; None if one cannot be read."""

    def send_unfinished(self, name: str) -> None:
        """Bring what there is of a run on this machine into the folder."""

    def send_finished(self, name: str) -> None:
        """Bring a finished run from this machine into the folder."""

    def hold(self, name: str, *, lock: bool) -> AbstractContextManager[Callable[[], None]]:
        """Hold the lock that a run has behind a URL; what is given raises an error if the lock was lost."""


class LocalRuns:
    """Runs in a folder of this machine: nothing is to be sent.

    Parameters
    ----------
    folder : str or Path
        It need not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    @property
    def url(self) -> str:
        return str(self._folder)

    def path(self, name: str) -> Path:
        return self._folder / name

    def locate(self, name: str) -> str:
        return str(self._folder / name)

    def receive(self, name: str) -> bool:
        return self.path(name).exists()

    def require_own(self, name: str) -> None:
        pass

    def has_checkpoint(self, name: str) -> bool:
        return _has_checkpoint(self.path(name + UNFINISHED))

    def receive_unfinished(self, name: str) -> None:
        pass

    def has_unfinished(self, name: str) -> bool:
        return self.path(name + UNFINISHED).is_dir()

    def read_unfinished(self, preset: str, files: tuple[str, ...]) -> Iterator[tuple[str, list[bytes] | None]]:
        for folder in sorted(self._folder.glob(f"{preset}-*{UNFINISHED}")):
            try:
                yield folder.name, [read_regular(folder / file) for file in files]
            except OSError:
                yield folder.name, None

    def send_unfinished(self, name: str) -> None:
        pass

    def send_finished(self, name: str) -> None:
        pass

    def hold(self, name: str, *, lock: bool) -> AbstractContextManager[Callable[[], None]]:
        refuse_owned_folder(self._folder, "a run")
        return nullcontext(lambda: None)


class RemoteRuns:
    """Runs behind a URL.

    They are trained in a copy in the user's folder for caches, and sent from there. Copies stay in the cache: a run
    that is deleted behind the URL comes back from a machine that has it, unless its copy is deleted too.

    Parameters
    ----------
    objects : RemoteObjects
        The folder.
    """

    def __init__(self, objects: RemoteObjects) -> None:
        self._objects = objects
        self._copies = cache_folder("runs") / hashlib.sha256(objects.url.encode()).hexdigest()[:16]
        self._sent: dict[Path, tuple[int, int]] = {}

    @property
    def url(self) -> str:
        return self._objects.url

    def path(self, name: str) -> Path:
        return self._copies / name

    def locate(self, name: str) -> str:
        return self._objects.locate(name)

    def receive(self, name: str) -> bool:
        there, copy = self._objects.child(name), self.path(name)
        try:
            record = there.read(MODEL_FILE)
        except FileNotFoundError:
            return False
        if not _holds(copy / MODEL_FILE, record):
            received = self._download(there, required=REQUIRED_FILES)
            if copy.is_dir():
                shutil.rmtree(copy, ignore_errors=True)
            try:
                received.rename(copy)
            except OSError:
                # Another process has received it meanwhile.
                shutil.rmtree(received)
                if not _holds(copy / MODEL_FILE, record):
                    raise
        return True

    def require_own(self, name: str) -> None:
        for folder in (name + UNFINISHED, name):
            _require_own(self._objects.child(folder))

    def has_checkpoint(self, name: str) -> bool:
        keys = self._objects.child(name + UNFINISHED).keys() or ()
        return _has_checkpoint(self.path(name + UNFINISHED)) or any(_is_checkpoint(PurePosixPath(key)) for key in keys)

    def receive_unfinished(self, name: str) -> None:
        there, copy = self._objects.child(name + UNFINISHED), self.path(name + UNFINISHED)
        newest = max((key for key in there.keys() or () if _is_checkpoint(PurePosixPath(key))), default="")
        ours = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if _is_checkpoint(path)]
        # Their names are in the order of the steps. Equal names: this machine sent it.
        if newest > max(ours, default=""):
            received = self._download(there, required=())
            try:
                UNFINISHED_RUN.delete_own(LocalObjects(copy))
                own = filter(UNFINISHED_RUN.makes, LocalObjects(received).keys() or ())
                # The marker first: what lies there without it is somebody else's.
                for key in sorted(own, key=lambda key: key != UNFINISHED_RUN.marker):
                    (copy / key).parent.mkdir(parents=True, exist_ok=True)
                    (received / key).rename(copy / key)
            finally:
                shutil.rmtree(received)

    def has_unfinished(self, name: str) -> bool:
        return self.path(name + UNFINISHED).is_dir() or bool(self._objects.child(name + UNFINISHED).keys())

    def read_unfinished(self, preset: str, files: tuple[str, ...]) -> Iterator[tuple[str, list[bytes] | None]]:
        folders = {key.partition("/")[0] for key in self._objects.keys() or ()}
        for folder in sorted(folders):
            if folder.startswith(f"{preset}-") and folder.endswith(UNFINISHED):
                try:
                    yield folder, [self._objects.read(f"{folder}/{file}") for file in files]
                except FileNotFoundError:
                    yield folder, None

    def send_unfinished(self, name: str) -> None:
        self._upload(self.path(name + UNFINISHED), self._objects.child(name + UNFINISHED), last=_is_checkpoint)

    def send_finished(self, name: str) -> None:
        self._upload(self.path(name), self._objects.child(name), last=lambda path: path.name == MODEL_FILE)
        UNFINISHED_RUN.discard(self._objects.child(name + UNFINISHED))

    def hold(self, name: str, *, lock: bool) -> AbstractContextManager[Callable[[], None]]:
        refuse_owned_folder(self._objects, "a run")
        return hold_place(self._objects, lock_key(name), "another process is training this run", lock=lock)

    def _download(self, there: RemoteObjects, *, required: tuple[str, ...]) -> Path:
        """Return a new folder with everything that is there."""
        keys = there.keys()
        folder = self._copies / f".{uuid.uuid4().hex}.tmp"
        folder.mkdir(parents=True)
        try:
            for key in (
                (*required, LEDGER_KEY, IMPORTED_FILE, *SHOWN_FILES, *_list_code(there)) if keys is None else keys
            ):
                problem = find_name_problem(key)
                if problem is not None:
                    raise RunError(
                        "the name of a file leads out of the run",
                        path=there.url,
                        found=f"{key!r}: {problem}",
                        expected="a relative path",
                        remedy="do not trust this run; train again, or copy it from where it was trained",
                    )
                path = folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    there.download(key, path)
                except FileNotFoundError:
                    if key in required:
                        raise RunError(
                            "a file of the run is missing",
                            path=there.url,
                            found=f"no {key}",
                            remedy=RESTORE,
                        ) from None
        except BaseException:
            shutil.rmtree(folder)
            raise
        return folder

    def _upload(self, folder: Path, there: RemoteObjects, *, last: Callable[[Path], bool]) -> None:
        """Send what the run has written since it was last sent, then delete what it has deleted here.

        The marker goes first: what lies there without it is somebody else's.
        """
        _require_own(there)
        own = {key: folder / key for key in LocalObjects(folder).keys() or () if UNFINISHED_RUN.makes(key)}
        for key, path in sorted(own.items(), key=lambda item: (last(item[1]), item[0] != UNFINISHED_RUN.marker)):
            status = os.stat(path)
            stamp = (status.st_size, status.st_mtime_ns)
            if self._sent.get(path) != stamp:
                there.upload(path, key)
                self._sent[path] = stamp
        there.delete_keys([key for key in there.keys() or () if UNFINISHED_RUN.makes(key) and key not in own])


def open_runs(runs: str | Path) -> RunsFolder:
    """Return the runs in a local folder or behind any fsspec URL.

    Raises
    ------
    StoreError
        If no file system serves the URL.
    """
    objects = open_objects(runs)
    return RemoteRuns(objects) if isinstance(objects, RemoteObjects) else LocalRuns(objects.root)


def split_run(run: str | Path) -> tuple[RunsFolder, str]:
    """Return the folder that a run is in, and its name there.

    Raises
    ------
    RunError
        If a URL names no folder in a bucket.
    StoreError
        If no file system serves the URL.
    """
    objects = open_objects(run)
    if isinstance(objects, RemoteObjects):
        folder, _, name = objects.url.rpartition("/")
        if not name or folder.endswith(("/", ":")):
            raise RunError("a run cannot be a whole bucket", path=os.fspath(run), remedy="name a folder in it")
        return open_runs(folder), name
    return LocalRuns(objects.root.parent), objects.root.name


def _has_checkpoint(folder: Path) -> bool:
    return any(_is_checkpoint(path) for path in (folder / CHECKPOINTS_FOLDER).glob("*.json"))


def _require_own(there: RemoteObjects) -> None:
    """Raise a :class:`RunError` if somebody else's files have names of a run's."""
    taken = [key for key in there.keys() or () if UNFINISHED_RUN.makes(key)]
    if taken and not UNFINISHED_RUN.bears_marker(there):
        raise RunError(
            "something else has the name of the run",
            path=there.url,
            found=f"{name_some(taken)}, without a {UNFINISHED_RUN.marker} that this software wrote",
            remedy=f"{MOVE_FOREIGN}; or name another folder with --runs",
        )


def _list_code(there: RemoteObjects) -> list[str]:
    """Return the files of code of a run on a web server, which does not say what it has: its ledger does."""
    try:
        ledger = read_run_ledger(there)
    except RunError:
        return []  # Told when the run is opened.
    return [] if ledger is None else [key for key in ledger.objects if key.startswith(f"{CODE_FOLDER}/")]


def _is_checkpoint(path: PurePosixPath) -> bool:
    return path.parent.name == CHECKPOINTS_FOLDER and path.suffix == ".json"


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path) == content
    except OSError:
        return False
