"""Trials that a user leaves out, as ``SESSION:TRIAL``, for example ``F:17``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from sensorium_data.counting import count_things, name_some
from sensorium_data.errors import StoreError, TrialError, UnknownNameError, UsageError, describe_os_error
from sensorium_data.sessions import find_session
from sensorium_data.store.store import Store

__all__ = [
    "Exclusions",
    "format_exclusions",
    "list_trials",
    "parse_exclusions",
    "read_exclusions",
    "require_trials",
]

#: The ids of the trials left out, by full session name.
Exclusions: TypeAlias = Mapping[str, frozenset[int]]

_TRIAL = re.compile(r"[0-9]{1,9}")
_MOST_BYTES = 2**22
_EXAMPLE = "SESSION:TRIAL, for example F:17"
# Long lists are of no help in a message.
_MOST_NAMED = 10


def parse_exclusions(entries: str | Iterable[str]) -> dict[str, frozenset[int]]:
    """Return which trials of which sessions are left out.

    Parameters
    ----------
    entries : str or iterable of str
        ``SESSION:TRIAL`` each, or several of them with commas between: the session by alias or full name, the trial by
        its id.

    Raises
    ------
    UsageError
        If an entry has another form, or its session cannot exist.

    Examples
    --------
    >>> {name[:12]: sorted(trials) for name, trials in parse_exclusions(["F:17,F:23", "G:4"]).items()}
    {'dynamic29515': [17, 23], 'dynamic29623': [4]}
    """
    excluded: dict[str, set[int]] = {}
    texts = [entries] if isinstance(entries, str) or not isinstance(entries, Iterable) else list(entries)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError("trial to leave out", found=ascii(text)[:200], expected=_EXAMPLE)
        for entry in text.split(","):
            name, trial = _parse_entry(entry)
            excluded.setdefault(name, set()).add(trial)
    return {name: frozenset(trials) for name, trials in sorted(excluded.items())}


def format_exclusions(exclusions: Mapping[str, Collection[int]]) -> tuple[str, ...]:
    """Return exclusions as entries, by full session name and trial, each once: equal for equal ones."""
    return tuple(f"{name}:{trial}" for name, trials in sorted(exclusions.items()) for trial in sorted(set(trials)))


def read_exclusions(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the entries of a file, as :func:`format_exclusions` does.

    Parameters
    ----------
    path : path
        UTF-8 text with one ``SESSION:TRIAL`` a line. What follows a ``#`` is a comment, and empty lines are skipped.

    Raises
    ------
    UsageError
        If the file cannot be read, is no text or larger than 4 MB, or a line is no entry; the message names the line.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(
                "too large for a list of trials", path=path, found="over 4 MB", expected=f"a line a trial: {_EXAMPLE}"
            )
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(
            "the list of trials to leave out cannot be read",
            path=path,
            found=describe_os_error(error),
            remedy="check the path of --exclude-from",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            "the list of trials to leave out is not text in UTF-8",
            path=path,
            expected=f"a line a trial: {_EXAMPLE}",
            remedy="save it as plain text",
        ) from error
    excluded: dict[str, set[int]] = {}
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            name, trial = _parse_entry(entry)
        except UsageError as error:
            raise UsageError(
                f"line {number}: {error.problem}",
                path=path,
                found=error.found,
                expected=error.expected or _EXAMPLE,
                remedy=error.remedy,
            ) from error
        excluded.setdefault(name, set()).add(trial)
    return format_exclusions(excluded)


def require_trials(store: Store, exclusions: Exclusions) -> None:
    """Check that a store has every trial that is left out.

    Raises
    ------
    StoreError
        If it lacks a session; the message names those that it has.
    TrialError
        If a session lacks a trial; the message says which trials it has.
    """
    for name, trials in exclusions.items():
        session = find_session(name)
        if session not in store:
            raise StoreError(
                "a trial is left out of a session that is not in the store",
                session=session,
                trial=min(trials),
                path=store.url,
                found=", ".join(one.alias for one in store.sessions) or "no session",
                remedy="correct or remove the entry of --exclude or --exclude-from",
            )
        there = store[session]["trial"].values.tolist()
        missing = sorted(trials.difference(there))
        if missing:
            raise TrialError(
                "a trial that is to be left out is not in the session",
                session=session,
                trial=missing[0],
                path=store.url,
                found=f"{count_things(len(there), 'trial')}, ids {min(there)} to {max(there)}, "
                f"without {list_trials(missing)}",
                remedy="correct or remove the entry of --exclude or --exclude-from",
            )


def list_trials(trials: Collection[int]) -> str:
    """Return some of the ids, for a message."""
    return name_some(sorted(trials), most=_MOST_NAMED)


def _parse_entry(entry: str) -> tuple[str, int]:
    name, separator, trial = (part.strip() for part in entry.rpartition(":"))
    if not separator or not name or not _TRIAL.fullmatch(trial):
        shown = ascii(entry.strip() if len(entry) <= 200 else f"{entry[:200]}…")
        raise UsageError("a trial to leave out", found=shown, expected=_EXAMPLE)
    try:
        return find_session(name).name, int(trial)
    except UnknownNameError as error:
        raise UsageError(
            "a trial to leave out of an unknown session",
            found=ascii(entry.strip()[:200]),
            expected=_EXAMPLE,
            remedy="name the session by its alias, A to J, or its full name",
        ) from error
