"""What becomes of trials whose behavior or pupil center is missing (NaN) at some frames, as in a blink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import UsageError

__all__ = ["NAN_POLICIES", "NanPolicy", "can_fill", "fill_gaps", "find_gaps"]

#: How the policies are written.
NAN_POLICIES = ("refuse", "interpolate:N", "drop-trial")


@dataclass(frozen=True)
class NanPolicy:
    """What becomes of a trial with missing behavior or pupil center between recorded frames.

    What is missing at a trial's end has a rule of its own: see :mod:`sensorium_data.recorded_frames`.

    Attributes
    ----------
    name : {"refuse", "interpolate", "drop-trial"}
        ``refuse``: an error. ``interpolate``: gaps between recorded frames are filled linearly, row by row; longer
        gaps, and one at the trial's start, are an error. ``drop-trial``: the trial is left out.
    n_frames : int
        The longest gap that is filled, in frames; 0 unless interpolating.
    """

    name: Literal["refuse", "interpolate", "drop-trial"] = "refuse"
    n_frames: int = 0

    @classmethod
    def parse(cls, policy: str | NanPolicy) -> Self:
        """Return the policy that is written as one of :data:`NAN_POLICIES`.

        Raises
        ------
        UsageError
            If it is none of them.

        Examples
        --------
        >>> NanPolicy.parse("interpolate:10")
        NanPolicy(name='interpolate', n_frames=10)
        """
        name, separator, number = str(policy).strip().partition(":")
        if name == "interpolate" and number.isascii() and number.isdigit() and 0 < len(number) < 7 and int(number) > 0:
            return cls("interpolate", int(number))
        if name in ("refuse", "drop-trial") and not separator:
            return cls(name)  # type: ignore[arg-type]
        raise UsageError(
            "policy for NaN in behavior and pupil center",
            found=ascii(str(policy)[:200]),
            expected=f"one of {', '.join(NAN_POLICIES)}",
            remedy="interpolate:10 fills gaps of up to 10 frames",
        )

    def __str__(self) -> str:
        return f"interpolate:{self.n_frames}" if self.name == "interpolate" else self.name


def find_gaps(values: npt.NDArray[np.floating], n_frames: int) -> list[tuple[int, int, int]]:
    """Return where a trial's values are no finite numbers.

    Parameters
    ----------
    values : ndarray, shape (row, time)
        One variable of one trial.
    n_frames : int
        Frames that have to hold numbers.

    Returns
    -------
    list of (int, int, int)
        Row, first frame, and the frame after the last, of each gap.

    Examples
    --------
    >>> find_gaps(np.array([[1.0, np.nan, np.nan, 4.0]]), 4)
    [(0, 1, 3)]
    """
    missing = ~np.isfinite(values[:, :n_frames])
    edges = np.diff(np.pad(missing.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (rows, starts), (_, stops) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


def can_fill(values: npt.NDArray[np.floating], n_frames: int) -> bool:
    """Whether :func:`fill_gaps` could fill all gaps of one variable of one trial, however long they are.

    A gap at the trial's start or end has a recorded frame on one side only, and infinity was recorded.
    """
    return not any(
        start == 0 or stop == n_frames or not np.isnan(values[row, start:stop]).all()
        for row, start, stop in find_gaps(values, n_frames)
    )


def fill_gaps(values: npt.NDArray[np.floating], n_frames: int, longest: int) -> bool:
    """Fill the gaps of one variable of one trial linearly, in place, if all of them can be filled.

    Parameters
    ----------
    values : ndarray, shape (row, time)
        Changed in place, or left as they are.
    n_frames : int
        Frames that have to hold numbers.
    longest : int
        The longest gap that is filled, in frames.

    Returns
    -------
    bool
        False if a gap is longer, has no recorded frame on one side, or holds an infinite value: nothing was filled
        then.

    Examples
    --------
    >>> pupil = np.array([[1.0, np.nan, np.nan, 4.0]])
    >>> fill_gaps(pupil, 4, longest=2), pupil.tolist()
    (True, [[1.0, 2.0, 3.0, 4.0]])
    """
    gaps = find_gaps(values, n_frames)
    if not can_fill(values, n_frames) or any(stop - start > longest for _, start, stop in gaps):
        return False
    for row, start, stop in gaps:
        ends = [start - 1, stop]
        values[row, start:stop] = np.interp(np.arange(start, stop), ends, values[row, ends])
    return True
