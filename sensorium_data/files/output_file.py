"""Files that are written where somebody names them: they replace nothing else, and appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium_data.errors import StoreError, UsageError, describe_os_error
from sensorium_data.files.local_objects import sync_path
from sensorium_data.files.regular_file import open_regular
from sensorium_data.files.remote_objects import RemoteObjects
from sensorium_data.files.temporary_files import replace_whole

if TYPE_CHECKING:
    from sensorium_data.files.objects import Objects

__all__ = ["OutputFile", "refuse_owned_folder"]

# What is written so is smaller.
_MAX_SIZE_BYTES = 2**28
# A folder with this is a session's, predictions' or a run's, and holds nothing else.
_LEDGER = "ledger.json"


def refuse_owned_folder(folder: Path | RemoteObjects, what: str) -> None:
    """Raise a :class:`UsageError` if a folder belongs to a stored session, predictions or a run, or lies in one."""
    owner: Path | str | None
    if isinstance(folder, RemoteObjects):
        owner = next(
            (url for url in _list_parents(folder.url) if _holds_ledger(RemoteObjects(url, folder.policy))), None
        )
    else:
        owner = next((one for one in (folder, *folder.parents) if (one / _LEDGER).is_file()), None)
    if owner is not None:
        raise UsageError(
            f"{what} cannot be written into a stored session, predictions or a run",
            path=folder.url if isinstance(folder, RemoteObjects) else folder,
            found=f"{owner}, which has a list of what belongs to it",
            remedy="name another folder",
        )


def _list_parents(url: str) -> Iterator[str]:
    """Yield a URL and those of the folders that it lies in, to the bucket or the server."""
    while url.partition("://")[2]:
        yield url
        url = url.rpartition("/")[0]


def _holds_ledger(place: RemoteObjects) -> bool:
    try:
        return place.size(_LEDGER) is not None
    except StoreError:
        # Who may write into a folder need not be allowed to read the one that it lies in.
        return False


@dataclass(frozen=True)
class OutputFile:
    """A kind of file that is written where somebody names it.

    Attributes
    ----------
    what : str
        What it is, with its article, for errors: ``"the quality report"``.
    endings : tuple of str
        How its name may end, with the dot, in small letters; the usual one first.
    is_one : callable
        Whether a file that holds these bytes is of this kind, and as it was written.
    """

    what: str
    endings: tuple[str, ...]
    is_one: Callable[[bytes], bool]

    def require_writable(self, path: Path) -> None:
        """See that the file can be written, before the work that it is to hold; nothing is made.

        Where a link lies, the file that it names is meant. A folder that does not exist is made when the file is
        written, if the one that it is to lie in exists.

        Raises
        ------
        UsageError
            If the name ends otherwise, something else than an earlier file of this kind has it, or no file can be made
            there.
        """
        if path.suffix.lower() not in self.endings and not path.is_dir():
            raise UsageError(
                f"{self.what} needs another ending",
                path=path,
                found=path.suffix or "none",
                expected=" or ".join(self.endings),
                remedy=f"name it {path.stem}{self.endings[0]}",
            )
        with self._refuse_unwritable(path):
            target = _follow(path)
            if target.exists() and not self._may_replace(target):
                raise self._not_replaced(path)
            refuse_owned_folder(target.parent, self.what)
            with tempfile.TemporaryFile(dir=target.parent if target.parent.exists() else target.parent.parent):
                pass

    @contextmanager
    def replace(self, path: Path) -> Iterator[Path]:
        """Give a name to write the file under; it gets its own at the end, at once, unless something is raised.

        Raises
        ------
        UsageError
            As :meth:`require_writable` does, or if the file cannot be written.
        """
        self.require_writable(path)
        with self._refuse_unwritable(path):
            target = _follow(path)
            target.parent.mkdir(exist_ok=True)
            with replace_whole(target) as temporary:
                yield temporary
                sync_path(temporary)

    def require_replaceable(self, place: Objects, key: str) -> None:
        """See that nothing but an earlier file of this kind is replaced by an object that is to be written.

        Raises
        ------
        UsageError
            If something else has the name.
        StoreError
            If what has the name cannot be read.
        """
        size_bytes = place.size(key)
        if size_bytes is not None and (size_bytes > _MAX_SIZE_BYTES or not self.is_one(place.read(key))):
            raise self._not_replaced(place.locate(key))

    def _not_replaced(self, path: str | Path) -> UsageError:
        return UsageError(
            f"another file lies where {self.what} is to be written",
            path=path,
            expected=f"an earlier {self.what.removeprefix('the ')} that nobody changed, or nothing",
            remedy="choose another name, or move the file",
        )

    def _may_replace(self, path: Path) -> bool:
        """Whether an earlier file of this kind lies there, as it was written."""
        with open(open_regular(path), "rb") as file:
            return os.fstat(file.fileno()).st_size <= _MAX_SIZE_BYTES and self.is_one(file.read())

    @contextmanager
    def _refuse_unwritable(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.what} cannot be written",
                path=path,
                found=describe_os_error(error),
                remedy="name a file in a folder that exists and that you may write to",
            ) from error


def _follow(path: Path) -> Path:
    """Return the file that a path means: what a link names, or the path itself."""
    return Path(os.path.realpath(path))
