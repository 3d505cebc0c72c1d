"""Files that are written where somebody names them: they replace nothing else, and appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.errors import UsageError
from sensorium_data.files.regular_file import open_regular

__all__ = ["OutputFile"]

# As much of a file as tells what it is.
_HEAD_SIZE_BYTES = 4096


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
        Whether a file that begins with these bytes is of this kind.
    """

    what: str
    endings: tuple[str, ...]
    is_one: Callable[[bytes], bool]

    def require_writable(self, path: Path) -> None:
        """See that the file can be written, before the work that it is to hold; nothing is made.

        A folder that does not exist is made when the file is written, if the one that it is to lie in exists.

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
            if path.exists():
                with open(open_regular(path), "rb") as file:
                    is_replaceable = self.is_one(file.read(_HEAD_SIZE_BYTES))
                if not is_replaceable:
                    raise UsageError(
                        f"another file lies where {self.what} is to be written",
                        path=path,
                        expected=f"an earlier {self.what.removeprefix('the ')}, or nothing",
                        remedy="choose another name, or move the file",
                    )
            with tempfile.TemporaryFile(dir=path.parent if path.parent.exists() else path.parent.parent):
                pass

    @contextmanager
    def replace(self, path: Path) -> Iterator[Path]:
        """Give a name to write the file under; it gets its own at the end, at once, unless something is raised.

        Raises
        ------
        UsageError
            If the file cannot be written.
        """
        with self._refuse_unwritable(path):
            path.parent.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
            os.close(handle)
            partial = Path(name)
            try:
                yield partial
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
                partial.chmod(0o644)
                partial.replace(path)
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
                found=error.strerror or str(error),
                remedy="name a file in a folder that exists and that you may write to",
            ) from error
