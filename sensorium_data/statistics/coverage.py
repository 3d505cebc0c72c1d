"""Which frames the archive's own statistics cover, and what stands in for those that they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sensorium_data.counting import count_things
from sensorium_data.schema import VARIABLES

if TYPE_CHECKING:
    # Conversion needs this module, and not xarray, which takes long to import.
    import xarray as xr

__all__ = ["StatisticsCoverage", "describe_coverage", "measure_coverage", "read_coverage"]


@dataclass(frozen=True)
class StatisticsCoverage:
    """What the archive's statistics of a variable cover, up to the last frame of the longest trial.

    A row is a neuron, a pixel or a channel. A value is known if its mean and standard deviation are numbers.

    Attributes
    ----------
    variable : str
        Of which variable.
    n_frames : int
        Frames of the longest valid trial.
    n_rows : int
        Rows.
    first_frame, end_frame : int
        The first frame with a known value, and the one after the last; both 0 where nothing is known.
    n_rows_unknown : int
        Rows without any known value.
    n_unknown : int
        Single values that are not known, between those frames and in the other rows.
    n_rows_constant : int
        Rows whose known standard deviations are all zero.
    n_frames_constant : int
        Frames at which all known standard deviations are zero.
    """

    variable: str
    n_frames: int
    n_rows: int
    first_frame: int
    end_frame: int
    n_rows_unknown: int
    n_unknown: int
    n_rows_constant: int
    n_frames_constant: int

    @property
    def is_known(self) -> bool:
        """Whether any value is known."""
        return self.end_frame > 0 or self.n_frames == 0

    @property
    def is_constant(self) -> bool:
        """Whether all known standard deviations are zero."""
        return self.end_frame > 0 and self.n_rows_constant == self.n_rows - self.n_rows_unknown


def measure_coverage(variable: str, mean: np.ndarray, std: np.ndarray, n_frames: int) -> StatisticsCoverage:
    """Return what statistics of a variable cover.

    Parameters
    ----------
    variable : str
        One of the store's data variables.
    mean, std : np.ndarray
        The statistics, dimensions as the variable has them for one trial.
    n_frames : int
        Frames of the longest valid trial.
    """
    frame_axis = VARIABLES[variable].dims.index("time") - 1

    def cut(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values, frame_axis, -1).reshape(-1, values.shape[frame_axis])[:, :n_frames]

    std_RT = cut(std)
    known_RT = np.isfinite(cut(mean)) & np.isfinite(std_RT)
    known_T, known_R = known_RT.any(axis=0), known_RT.any(axis=1)
    changes_RT = known_RT & (std_RT != 0)
    first, end = 0, 0
    if known_T.any():
        first, end = int(known_T.argmax()), n_frames - int(known_T[::-1].argmax())
    return StatisticsCoverage(
        variable=variable,
        n_frames=n_frames,
        n_rows=len(known_R),
        first_frame=first,
        end_frame=end,
        n_rows_unknown=int((~known_R).sum()),
        n_unknown=int((~known_RT[known_R, first:end]).sum()),
        n_rows_constant=int((known_R & ~changes_RT.any(axis=1)).sum()),
        n_frames_constant=int((known_T & ~changes_RT.any(axis=0)).sum()),
    )


def read_coverage(statistics: xr.Dataset, n_frames: int) -> tuple[StatisticsCoverage, ...]:
    """Return what each variable's statistics cover, of the variables that there are statistics of.

    Parameters
    ----------
    statistics : xarray.Dataset
        What :func:`sensorium_data.store.open_statistics` returns.
    n_frames : int
        Frames of the longest valid trial.
    """

    def read(variable: str, statistic: str) -> np.ndarray:
        return np.asarray(statistics[variable].sel(statistic=statistic).values)

    return tuple(
        measure_coverage(variable, read(variable, "mean"), read(variable, "std"), n_frames)
        for variable in VARIABLES
        if variable in statistics
    )


def describe_coverage(coverages: Iterable[StatisticsCoverage]) -> tuple[str, ...]:
    """Return a sentence for each thing that is missing from statistics, and what the normalizations put in its place.

    Examples
    --------
    >>> std = np.array([[2.0, 3.0, np.nan, np.nan]])
    >>> describe_coverage([measure_coverage("responses", std, std, n_frames=4)])
    ("the statistics end at frame 2 of 4; later frames take frame 1's",)
    """
    all_of_them = tuple(coverages)
    known = [one for one in all_of_them if one.is_known]
    notes = [f"there are no statistics of {one.variable}" for one in all_of_them if not one.is_known]
    early: dict[tuple[int, int], list[str]] = {}
    late: dict[int, list[str]] = {}
    for one in known:
        if one.end_frame < one.n_frames:
            early.setdefault((one.end_frame, one.n_frames), []).append(one.variable)
        if one.first_frame > 0:
            late.setdefault(one.first_frame, []).append(one.variable)
    for (end, n_frames), variables in early.items():
        notes.append(
            f"the statistics{_of(variables, len(known))} end at frame {end} of {n_frames}; "
            f"later frames take frame {end - 1}'s"
        )
    for first, variables in late.items():
        notes.append(
            f"the statistics{_of(variables, len(known))} begin at frame {first}; earlier frames take that one's"
        )
    for one in known:
        rows = _ROWS[one.variable]
        if one.n_rows_unknown:
            notes.append(f"there are no statistics of {one.variable} for {one.n_rows_unknown} of {one.n_rows} {rows}")
        if one.n_unknown:
            notes.append(
                f"the statistics of {one.variable} lack {count_things(one.n_unknown, 'single value')}; "
                "the last known frame's stand in"
            )
    return tuple(notes)


_ROWS: Mapping[str, str] = {"videos": "pixels", "responses": "neurons", "behavior": "channels", "pupil_center": "axes"}


def _of(variables: list[str], n_known: int) -> str:
    return "" if len(variables) == n_known else f" of {' and '.join(variables)}"
