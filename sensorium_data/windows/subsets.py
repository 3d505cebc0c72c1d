"""A part of a session to train on: some of its trials, some of its neurons.

A number of them is drawn at random, since ids of neurons may follow their depth. Each id has a place in a fixed order
that only the session's name and the id decide. So the same number draws the same ones everywhere, whatever the seed of
a recipe; a larger number adds to those of a smaller one; and leaving one out does not change which others come first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.sessions import find_session
from sensorium_data.windows.plans import SessionTrials, is_count

__all__ = ["choose_neurons", "choose_trials", "normalize_neurons"]

_COUNT = re.compile(r"[0-9]{1,9}")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def choose_trials(trials: SessionTrials, n_trials: int | None) -> SessionTrials:
    """Return ``n_trials`` of a session's trials in the store's order, drawn as this module says; all if it has fewer.

    Raises
    ------
    UsageError
        If it is no whole number from 1 up.
    """
    if n_trials is None:
        return trials
    if not is_count(n_trials, least=1):
        raise UsageError("number of trials", found=ascii(n_trials), expected="a whole number from 1 up")
    chosen = _draw(trials.session, "trial", trials.trials, n_trials)
    kept = [(t, n) for t, n in zip(trials.trials, trials.n_frames, strict=True) if t in chosen]
    return SessionTrials(trials.session, tuple(t for t, _ in kept), tuple(n for _, n in kept))


def normalize_neurons(neurons: str | int) -> str:
    """Return a choice of neurons in its one form: a number as it is, unit ids and ranges of them sorted and joined.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> normalize_neurons("7, 1-3,2-4"), normalize_neurons(100)
    ('1-4,7-7', '100')
    """
    text = str(neurons).strip()
    if _COUNT.fullmatch(text) and int(text) > 0:
        return str(int(text))
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]) or _COUNT.fullmatch(text):
            raise UsageError(
                "choice of neurons",
                found=ascii(text[:200]),
                expected="how many of each session, for example 100; or unit ids, for example 1-50,73",
                remedy="a single unit id is written as a range: 73-73",
            )
        ranges.append((int(match[1]), int(match[2] or match[1])))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return ",".join(f"{first}-{last}" for first, last in joined)


def choose_neurons(
    session: str, unit_ids: npt.NDArray[np.int64], neurons: str | int, *, path: str | None = None
) -> npt.NDArray[np.int64]:
    """Return the chosen neurons of a session, in the order of ``unit_ids``.

    Parameters
    ----------
    session : str
        Alias or full name.
    unit_ids : ndarray of int, shape (neuron,)
        Those to choose among.
    neurons : str or int
        A number draws so many, as this module says, or all if there are fewer. Unit ids and ranges of them, both ends
        included (``"1-50,73"``), choose the ones that there are.
    path : str, optional
        The store, for messages.

    Raises
    ------
    UsageError
        If it is neither, or chooses no neuron.
    """
    text = normalize_neurons(neurons)
    name = find_session(session).name
    if _COUNT.fullmatch(text):
        drawn = _draw(name, "neuron", unit_ids.tolist(), int(text))
        return unit_ids[[unit in drawn for unit in unit_ids.tolist()]]
    chosen = np.zeros(unit_ids.shape, bool)
    for part in text.split(","):
        first, _, last = part.partition("-")
        inside = (unit_ids >= int(first)) & (unit_ids <= int(last))
        if not inside.any():
            raise UsageError(
                "no neuron has the unit ids that were chosen",
                session=find_session(name),
                path=path,
                found=f"{count_things(len(unit_ids), 'neuron')}, unit ids {unit_ids.min()} to {unit_ids.max()}",
                expected=f"some from {first} to {last}" if first != last else f"unit id {first}",
                remedy="choose among the session's unit ids, or give how many to draw",
            )
        chosen |= inside
    return unit_ids[chosen]


def _draw(session: str, kind: str, ids: Iterable[int], n_drawn: int) -> frozenset[int]:
    ordered = sorted(ids, key=lambda one: hashlib.sha256(f"{session} {kind} {one}".encode()).digest())
    return frozenset(ordered[:n_drawn])
