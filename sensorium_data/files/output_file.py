"""Files that are written where somebody names them: they replace nothing else, and appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files.regular_file import open_regular

__all__ = ["OutputFile"]

# As much of a file's beginning and of its end as tells what it is; Parquet says that at its end.
_HEAD_SIZE_BYTES = 4096
_TAIL_SIZE_BYTES = 65_536
# A folder with this is a session's, predictions' or a run's, and holds nothing else.
_LEDGER = "ledger.json"


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
        Whether a file is of this kind that begins and ends with these bytes; between them something may be left out.
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
            if target.exists() and not self.is_one(_read_ends(target)):
                raise UsageError(
                    f"another file lies where {self.what} is to be written",
                    path=path,
                    expected=f"an earlier {self.what.removeprefix('the ')}, or nothing",
                    remedy="choose another name, or move the file",
                )
            owner = next((one for one in target.parents if (one / _LEDGER).is_file()), None)
            if owner is not None:
                raise UsageError(
                    f"{self.what} cannot be written into a stored session, predictions or a run",
                    path=path,
                    found=f"{owner}, which has a list of what belongs to it",
                    remedy="name a file in another folder",
                )
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
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
            os.close(handle)
            partial = Path(name)
            try:
                yield partial
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
                partial.chmod(0o644)
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

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


def _read_ends(path: Path) -> bytes:
    """Return the first and the last bytes of a file."""
    with open(open_regular(path), "rb") as file:
        head = file.read(_HEAD_SIZE_BYTES)
        file.seek(max(len(head), file.seek(0, os.SEEK_END) - _TAIL_SIZE_BYTES))
        return head + file.read()
