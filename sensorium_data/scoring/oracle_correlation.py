"""The oracle correlation of the neurons of a stored session, in the units of the competition."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import UsageError
from sensorium_data.ordered_map import map_ahead
from sensorium_data.recorded_frames import count_recorded_frames
from sensorium_data.scoring.reliability import OracleReliability, RepeatMoments
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.statistics import response_precision
from sensorium_data.store import StoreLike, open_store

__all__ = ["measure_oracle_correlation"]


def measure_oracle_correlation(
    store: StoreLike, session: str | Session, *, exclude: Collection[int] = (), jobs: int = 2
) -> npt.NDArray[np.float64]:
    """Return each neuron's oracle correlation: that of a trial's response with the mean over the movie's other repeats.

    Over the valid trials of the oracle tier, in the competition's units, without the first 50 frames: what ``sensorium
    score`` calls ``oracle_correlation`` of that tier. Memory holds a movie's sums and a few trials.
    :func:`sensorium_data.explore.measure_reliability` measures the same of an opened session, in the units that its
    responses have and of any tier.

    Parameters
    ----------
    store : Store or path
        The session stores, or the path or URL of their root.
    session : str or Session
        Alias or full name.
    exclude : collection of int
        Ids of trials that do not count.
    jobs : int
        Trials read at once.

    Returns
    -------
    ndarray, shape (neuron,)
        0 for a constant trace and for one that holds a NaN.

    Raises
    ------
    StoreError
        If the session cannot be opened or is damaged.
    UsageError
        If no movie has two oracle trials that reach past the first 50 frames.

    References
    ----------
    See :mod:`sensorium_data.scoring.reliability`.
    """
    opened, found = open_store(store), find_session(session)
    recording = opened[found]
    precision = response_precision(opened.statistics(found)["responses"].sel(statistic="std").values)
    is_counted = (
        (recording["tier"].values.astype(str) == str(Tier.ORACLE))
        & recording["valid"].values
        & ~recording["responses_withheld"].values
        & ~np.isin(recording["trial"].values, sorted(exclude))
    )
    groups: dict[str, list[int]] = {}
    for position in np.flatnonzero(is_counted).tolist():
        movie = str(recording["movie_group"].values[position])
        if movie:
            groups.setdefault(movie, []).append(position)

    def read(position: int) -> npt.NDArray[np.float64]:
        # In this thread: trials are read side by side.
        values = recording["responses"][position].compute(scheduler="synchronous").values
        n_frames = count_recorded_frames(values, int(recording["n_frames"].values[position]))
        scaled: npt.NDArray[np.float64] = values[:, :n_frames] * precision[:, :n_frames]
        return scaled

    reliability = OracleReliability(recording.sizes["neuron"])
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="reliability") as pool:
        for positions in groups.values():
            if len(positions) < 2:
                continue
            moments = RepeatMoments(recording.sizes["neuron"], int(recording["n_frames"].values[positions].min()))
            for _, responses in map_ahead(pool, read, positions, jobs):
                moments.add(responses)
            reliability.add(moments)
    if not reliability.n_movies:
        raise UsageError(
            "the reliability of the neurons cannot be measured",
            session=found,
            path=opened.url,
            found=f"{int(is_counted.sum())} oracle trials that count, and no movie that two of them show past frame 50",
            expected="two trials of a movie or more",
            remedy="train without --min-reliability, or leave fewer oracle trials out",
        )
    return np.nan_to_num(reliability.correlation())
