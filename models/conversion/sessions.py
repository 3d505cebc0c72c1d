"""Which session of a store is meant by what a checkpoint calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sensorium_data.errors import RunError, UnknownNameError
from sensorium_data.sessions import Session, find_session

__all__ = ["choose_sessions", "match_sessions"]

_SCAN = re.compile(r"(?<!\d)\d+-\d+-\d+(?!\d)")


def match_sessions(keys: Iterable[str], sessions: Sequence[Session], *, store: str, path: Path) -> dict[str, str]:
    """Return the full name of each session that a checkpoint names.

    A checkpoint may name a session in full, by its alias, or by its scan with any suffix, if that is one session's.

    Parameters
    ----------
    keys : iterable of str
        What the checkpoint calls its sessions.
    sessions : sequence of Session
        Of the store.
    store : str
        Where they are.
    path : Path
        The checkpoint.

    Raises
    ------
    RunError
        If one is none of these sessions, or may be several, or two are the same one.
    """
    names: dict[str, str] = {}
    for key in keys:
        found = _find(key, sessions)
        if len(found) != 1:
            raise RunError(
                "the store has no session of the checkpoint"
                if not found
                else "a session of the checkpoint is ambiguous",
                path=path,
                found=key if not found else f"{key}, which is {' or '.join(session.name for session in found)}",
                expected=f"one of the sessions of {store}: {', '.join(session.name for session in sessions)}",
                remedy="give the store with all these sessions, or name those to take with --sessions",
            )
        names[key] = found[0].name
    _require_distinct(names, path)
    return names


def choose_sessions(keys: Iterable[str], sessions: Sequence[Session], *, path: Path) -> dict[str, str]:
    """Return the full names of some of a checkpoint's sessions, by what it calls them, in its order.

    Parameters
    ----------
    keys : iterable of str
        What the checkpoint calls its sessions.
    sessions : sequence of Session
        Those that are wanted.
    path : Path
        The checkpoint.

    Raises
    ------
    RunError
        If it lacks one, or two of its sessions may be the same one.
    """
    keys = list(keys)
    names = {key: found[0].name for key in keys if (found := _find(key, sessions))}
    for session in sessions:
        if session.name not in names.values():
            raise RunError("the checkpoint lacks a session", session=session.name, path=path, found=", ".join(keys))
    _require_distinct(names, path)
    return names


def _require_distinct(names: Mapping[str, str], path: Path) -> None:
    for name in names.values():
        same = [key for key, theirs in names.items() if theirs == name]
        if len(same) > 1:
            raise RunError("the checkpoint names a session twice", session=name, path=path, found=" and ".join(same))


def _find(key: str, sessions: Sequence[Session]) -> list[Session]:
    exact = [session for session in sessions if session.name == key]
    if exact:
        return exact
    try:
        known = find_session(key).name
    except UnknownNameError:
        known = key
    aliased = [session for session in sessions if session.name == known or session.alias == key]
    if aliased:
        return aliased
    scan = _SCAN.search(key)
    return [] if scan is None else [session for session in sessions if session.scan == scan[0]]
