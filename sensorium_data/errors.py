"""Errors that say what was found, what was expected, where, and what to do."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible, shorten

__all__ = [
    "ArchiveError",
    "DownloadError",
    "LockedError",
    "PredictionsError",
    "RangesRefusedError",
    "RunError",
    "SensoriumError",
    "SourceChangedError",
    "SourceError",
    "StoreError",
    "SubmissionError",
    "TerminatedError",
    "TrialError",
    "UnknownNameError",
    "UnlockableError",
    "UsageError",
    "describe_broken_link",
    "describe_os_error",
]

# Where the operating system's words do not say what was found.
_FOUND = MappingProxyType(
    {
        errno.EISDIR: "a folder where a file is expected",
        errno.ENOTDIR: "a file where a folder is expected",
        errno.ENOTEMPTY: "a folder that is not empty",
        errno.ENAMETOOLONG: "a name that is too long for the file system",
    }
)


def describe_os_error(error: OSError) -> str:
    """Return what an error of the operating system found, in words.

    Examples
    --------
    >>> describe_os_error(IsADirectoryError(errno.EISDIR, "Is a directory"))
    'a folder where a file is expected'
    """
    code = error.errno or 0
    # Who raises such an error with words of his own has said what was found.
    if error.strerror == os.strerror(code):
        if code in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST) and isinstance(error.filename, str | os.PathLike):
            blocking = _find_blocking(Path(os.fsdecode(error.filename)))
            if blocking is not None:
                return f"{blocking} where a folder is expected"
        if code in _FOUND:
            return _FOUND[code]
    return error.strerror or str(error) or type(error).__name__


def describe_broken_link(path: str | os.PathLike[str]) -> str | None:
    """Return in words what is wrong with a link on the way to a path, or with the path itself if it is one.

    None if every link leads somewhere.
    """
    path = Path(path)
    for one in (*reversed(path.parents), path):
        if not one.is_symlink():
            continue
        try:
            one.stat()
        except OSError as error:
            end = {errno.ELOOP: "itself", errno.ENOENT: "nothing", errno.ENOTDIR: "nothing"}.get(error.errno or 0)
            if end is not None:
                return f"a link that leads to {end}" + ("" if one == path else f" ({one})")
    return None


def _find_blocking(path: Path) -> str | None:
    """Return what is on the way to something that could not be opened or made."""
    link = describe_broken_link(path)
    if link is not None:
        return link
    file = next((parent for parent in path.parents if parent.is_file()), None)
    return None if file is None else f"the file {file}"


class SensoriumError(Exception):
    """Base of every error this project raises on bad input.

    The message is one line. It is put together from its parts, so that every error names the
    session, the trial and the path in the same place and the same words. Logins and signatures in URLs are left out,
    and control characters are written out.

    Parameters
    ----------
    problem : str
        What is wrong, as a clause without a full stop.
    session, trial, path
        Where: the session's name, the trial's id, the file or URL.
    found, expected
        What there was, and what there should have been.
    remedy : str, optional
        What to do about it, as an imperative clause without a full stop.

    Examples
    --------
    >>> print(SensoriumError("wrong shape", trial=7, found=(2, 3), expected=(2, 300), remedy="convert it again"))
    trial 7: wrong shape: found (2, 3), expected (2, 300); convert it again
    """

    #: What the command line exits with: 2, an unreadable input; 1, a checked thing is wrong; 143, stopped by SIGTERM.
    exit_status: ClassVar[int] = 2

    def __init__(
        self,
        problem: str,
        *,
        session: object | None = None,
        trial: object | None = None,
        path: object | None = None,
        found: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.session = session
        self.trial = trial
        self.path = path
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(self._compose())

    def _compose(self) -> str:
        where = []
        if self.session is not None:
            where.append(f"session {self.session}")
        if self.trial is not None:
            where.append(f"trial {self.trial}")
        if self.path is not None:
            where.append(shorten(str(self.path)))
        message = self.problem if not where else f"{', '.join(where)}: {self.problem}"
        details = []
        if self.found is not None:
            details.append(f"found {shorten(str(self.found))}")
        if self.expected is not None:
            details.append(f"expected {shorten(str(self.expected))}")
        if details:
            message += f": {', '.join(details)}"
        if self.remedy is not None:
            message += f"; {self.remedy}"
        # The parts come from files, archives and servers, and their line breaks could pass for another message's.
        return hide_secrets(" ".join(make_visible(message).split()))

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions,
        # and these cross process boundaries (Prefect, dask).
        return _rebuild, (
            type(self),
            self.problem,
            {
                "session": self.session,
                "trial": self.trial,
                "path": self.path,
                "found": self.found,
                "expected": self.expected,
                "remedy": self.remedy,
            },
        )


class UsageError(SensoriumError):
    """Arguments that cannot mean anything."""


class SourceError(SensoriumError):
    """Bytes that cannot be had: a missing path, a refused or wrongly answered request."""


class RangesRefusedError(SourceError):
    """A server that sends whole files only: its archives can be downloaded, not read in place."""


class SourceChangedError(SourceError):
    """Bytes of another version than the one that was opened: open the source again."""


class DownloadError(SensoriumError):
    """A download that cannot be kept: no space, no permission. Another server would not help."""


class ArchiveError(SensoriumError):
    """An archive that is no zip, is truncated, or whose members fail their checks."""


class TrialError(SensoriumError):
    """A trial or metadata array of the wrong dtype, shape or content."""


class StoreError(SensoriumError):
    """A session store that is missing, unfinished, damaged or of another schema version."""


class LockedError(StoreError):
    """Something in an object store that another process is working on."""


class UnlockableError(StoreError):
    """An object store that does not heed the conditions by which it would be locked."""


class RunError(SensoriumError):
    """A training run that is missing, unfinished, or does not fit its data."""


class TerminatedError(RunError):
    """Training that SIGTERM has stopped, with a checkpoint to continue from."""

    exit_status = 143


class PredictionsError(SensoriumError):
    """A predictions store that is missing, unfinished, or does not fit the session stores."""


class SubmissionError(SensoriumError):
    """A submission that cannot be written or read."""


class UnknownNameError(UsageError):
    """A name (session, preset, setting, tier) that does not exist; the message names the near ones."""

    @classmethod
    def of(
        cls, kind: str, name: str, known: Iterable[str], *, remedy: str | None = None, otherwise: str | None = None
    ) -> UnknownNameError:
        """Build the error for ``name``, looking for near names among ``known``.

        Parameters
        ----------
        kind : str
            What ``name`` should have been, e.g. ``"session"``.
        name : str
            The unknown name.
        known : iterable of str
            All names that exist.
        remedy : str, optional
            What to do; by default the near names are proposed.
        otherwise : str, optional
            What to do where no name is near; by default all names are proposed.
        """
        names = list(known)
        folded = {n.casefold(): n for n in names}
        near = [folded[n] for n in difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)]
        if remedy is None:
            everything = otherwise or f"choose one of {', '.join(names)}"
            remedy = f"did you mean {' or '.join(near)}?" if near else everything
        return cls(f"unknown {kind}", found=repr(name), remedy=remedy)


def _rebuild(kind: type[SensoriumError], problem: str, parts: dict[str, Any]) -> SensoriumError:
    return kind(problem, **parts)
