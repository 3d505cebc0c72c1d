"""The published models' normalizations, by name.

======================  ==============================================================================================
Name                    Who normalizes so
======================  ==============================================================================================
``competition``         the competition's server and the baselines of its starter kit, ecker-lab/sensorium_2023
``dwiseneuro``          DwiseNeuro, first place, lRomul/sensorium
``vivit``               ViV1T of 2023, third place, bryanlimy/ViV1T, as it was meant
``vivit-legacy``        the same with its mistake, as its published weights were trained
``vivit-closed-loop``   ViV1T of 2025, bryanlimy/ViV1T-closed-loop
``none``                nobody: arrays as they are stored
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import xarray as xr

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import find_session
from sensorium_data.statistics.statistics import (
    Normalizer,
    add_absent_variables,
    competition_normalizer,
    fill_missing_frames,
    invert_scale,
    read_competition_precision,
    response_precision,
)
from sensorium_data.statistics.train_statistics import LUMINANCE, StatisticsAxes, compute_train_statistics
from sensorium_data.store import StoreLike, open_statistics, open_store

__all__ = [
    "NORMALIZATIONS",
    "dwiseneuro_normalizer",
    "open_normalizer",
    "raw_normalizer",
    "vivit_closed_loop_normalizer",
    "vivit_legacy_normalizer",
    "vivit_normalizer",
]

# ViV1T uses the first frames of longer trials alone.
_N_VIVIT_FRAMES = 300
_ComputeStatistics: TypeAlias = Callable[[StatisticsAxes], xr.Dataset]

# Added to standard deviations by the closed-loop version, so that none is zero.
_EPSILON = float(np.finfo(np.float32).eps)


def open_normalizer(
    name: str,
    store: StoreLike,
    session: str,
    *,
    jobs: int = 4,
    progress: Progress = ignore_progress,
    exclude: Collection[int] = (),
    skips_missing: bool = False,
) -> Normalizer:
    """Return a session's normalization by name.

    Those of ViV1T read the session's training trials for their statistics first, half a minute for
    a whole session; who needs several of them computes the statistics once
    (:func:`~sensorium_data.statistics.compute_train_statistics`) and calls :func:`vivit_normalizer` or
    :func:`vivit_closed_loop_normalizer` with them.

    Parameters
    ----------
    name : str
        One of :data:`NORMALIZATIONS`.
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    jobs, progress, exclude, skips_missing
        As in :func:`~sensorium_data.statistics.compute_train_statistics`, where that is needed.

    Raises
    ------
    UnknownNameError
        If no normalization has this name; the message proposes the near ones.
    StoreError
        If the session cannot be opened or is damaged.
    UsageError
        If its responses' standard deviations have no positive mean, or it has no training trial where those are
        needed.

    Examples
    --------
    >>> normalizer = open_normalizer("vivit", "stores", "F")  # doctest: +SKIP
    >>> normalizer.responses_to_competition(predictions)  # doctest: +SKIP
    """
    make = NORMALIZATIONS.get(name)
    if make is None:
        raise UnknownNameError.of("normalization", name, NORMALIZATIONS)
    opened = open_store(store)

    def compute(axes: StatisticsAxes) -> xr.Dataset:
        return compute_train_statistics(
            opened, session, axes=axes, jobs=jobs, progress=progress, exclude=exclude, skips_missing=skips_missing
        )

    return make(opened, session, compute)


def raw_normalizer(store: StoreLike, session: str) -> Normalizer:
    """Return the normalization that leaves every array as it is stored.

    Raises
    ------
    StoreError, UsageError
        As :func:`open_normalizer` does.
    """
    return _keep_inputs("none", store, session, least_response=-np.inf)


def dwiseneuro_normalizer(store: StoreLike, session: str) -> Normalizer:
    """Return DwiseNeuro's: inputs in raw units (luminance 0 to 255), raw responses, none below zero.

    Its predictions are in raw units, and were multiplied by the competition's precision before they were submitted,
    which is what :meth:`Normalizer.responses_to_competition` does.

    Raises
    ------
    StoreError, UsageError
        As :func:`open_normalizer` does.

    References
    ----------
    lRomul/sensorium, ``src/inputs.py`` and ``src/responses.py``.
    """
    return _keep_inputs("dwiseneuro", store, session, least_response=0.0)


def vivit_normalizer(store: StoreLike, session: str, train: xr.Dataset) -> Normalizer:
    """Return that of ViV1T of 2023, by statistics over training trials, frame by frame.

    - Videos ``(v - min) / (max - min)`` for each pixel and frame, as it was meant;
      :func:`vivit_legacy_normalizer` is what the published weights were trained with.
    - Behavior and pupil center ``(x - min) / (max - min)``.
    - Responses times :func:`~sensorium_data.statistics.response_precision` of their training statistics.

    Only the first 300 frames have statistics, as in the reference, which cuts trials there; those after them take the
    last one's, as do frames that no training trial has. Where a denominator is zero it is 1.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    train : xarray.Dataset
        What :func:`~sensorium_data.statistics.compute_train_statistics` returns for the session, over trials.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    UsageError
        If the statistics are not the session's, or not over trials, or their responses' standard deviations have no
        positive mean.

    References
    ----------
    bryanlimy/ViV1T, ``transform_mode=2`` and ``stat_mode=1`` of ``src/viv1t/data/data.py`` and ``statistics.py``.
    """
    return _vivit_of_2023("vivit", store, session, train, ("min", "max"))


def vivit_legacy_normalizer(store: StoreLike, session: str, train: xr.Dataset) -> Normalizer:
    """Return that of ViV1T of 2023 with its mistake: videos ``(v - mean) / (std - mean)``, in place of min and max.

    Published weights were trained so. Parameters, errors and everything else are those of :func:`vivit_normalizer`.
    """
    return _vivit_of_2023("vivit-legacy", store, session, train, ("mean", "std"))


def vivit_closed_loop_normalizer(store: StoreLike, session: str, train: xr.Dataset) -> Normalizer:
    """Return that of ViV1T's closed-loop version, by statistics over training trials and time.

    - Videos ``(v - mean) / (std + ε)`` with one mean and one std of all pixels, ε = 1.19e-7.
    - Behavior ``b / std`` without centering, pupil center ``(p - mean) / (std + ε)``, by channel.
    - Responses times :func:`~sensorium_data.statistics.response_precision` of each neuron's std.

    Where a standard deviation is zero, values are divided by 1.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    train : xarray.Dataset
        What :func:`~sensorium_data.statistics.compute_train_statistics` returns for the session, over trials
        and time.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    UsageError
        If the statistics are not the session's, or not over trials and time, or their responses' standard deviations
        have no positive mean.

    References
    ----------
    bryanlimy/ViV1T-closed-loop, ``transform_input=1`` and ``transform_output=1`` of ``viv1t/data``.
    """
    _require_statistics(train, session, "trials and time")
    train = add_absent_variables(train)

    def read(variable: str, statistic: str) -> np.ndarray:
        # A frame axis of length 1, for what is the same at every frame.
        return np.asarray(train[variable].sel(statistic=statistic).values)[..., None]

    def invert(std: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
        return invert_scale(np.where(std > 0, std + epsilon, std), axis=-1)

    with open_statistics(store, session) as stored:
        archived = add_absent_variables(stored)
        return Normalizer(
            name="vivit-closed-loop",
            video_offset=_for_videos(archived, read(LUMINANCE, "mean")),
            video_scale=_for_videos(archived, invert(read(LUMINANCE, "std"), _EPSILON)),
            behavior_offset=_for_frames(archived, "behavior", 0.0),
            behavior_scale=_for_frames(archived, "behavior", invert(read("behavior", "std"))),
            pupil_center_offset=_for_frames(archived, "pupil_center", read("pupil_center", "mean")),
            pupil_center_scale=_for_frames(archived, "pupil_center", invert(read("pupil_center", "std"), _EPSILON)),
            precision=_for_frames(archived, "responses", response_precision(read("responses", "std"))),
            competition_precision=read_competition_precision(archived),
        )


def _vivit_of_2023(
    name: str, store: StoreLike, session: str, train: xr.Dataset, of_videos: tuple[str, str]
) -> Normalizer:
    _require_statistics(train, session, "trials")
    train = add_absent_variables(train)
    capped = train.where(xr.DataArray(np.arange(train.sizes["time"]) < _N_VIVIT_FRAMES, dims="time"))

    def read(variable: str, statistic: str) -> np.ndarray:
        return np.asarray(capped[variable].sel(statistic=statistic).values)

    lowest, highest = (read("videos", statistic) for statistic in of_videos)
    ranges = {variable: read(variable, "max") - read(variable, "min") for variable in ("behavior", "pupil_center")}
    with open_statistics(store, session) as stored:
        archived = add_absent_variables(stored)
        return Normalizer(
            name=name,
            video_offset=fill_missing_frames(lowest, axis=0).astype(np.float32),
            video_scale=invert_scale(highest - lowest, axis=0),
            behavior_offset=fill_missing_frames(read("behavior", "min"), axis=1).astype(np.float32),
            behavior_scale=invert_scale(ranges["behavior"], axis=1),
            pupil_center_offset=fill_missing_frames(read("pupil_center", "min"), axis=1).astype(np.float32),
            pupil_center_scale=invert_scale(ranges["pupil_center"], axis=1),
            precision=response_precision(read("responses", "std")),
            competition_precision=read_competition_precision(archived),
        )


def _vivit(store: StoreLike, session: str, compute: _ComputeStatistics) -> Normalizer:
    return vivit_normalizer(store, session, compute("trials"))


def _vivit_legacy(store: StoreLike, session: str, compute: _ComputeStatistics) -> Normalizer:
    return vivit_legacy_normalizer(store, session, compute("trials"))


def _vivit_closed_loop(store: StoreLike, session: str, compute: _ComputeStatistics) -> Normalizer:
    return vivit_closed_loop_normalizer(store, session, compute("trials and time"))


#: How each is made, from a store, a session, and what computes the statistics of its training trials.
NORMALIZATIONS: Mapping[str, Callable[[StoreLike, str, _ComputeStatistics], Normalizer]] = MappingProxyType(
    {
        "competition": lambda store, session, _: competition_normalizer(store, session),
        "dwiseneuro": lambda store, session, _: dwiseneuro_normalizer(store, session),
        "vivit": _vivit,
        "vivit-legacy": _vivit_legacy,
        "vivit-closed-loop": _vivit_closed_loop,
        "none": lambda store, session, _: raw_normalizer(store, session),
    }
)


def _keep_inputs(name: str, store: StoreLike, session: str, *, least_response: float) -> Normalizer:
    with open_statistics(store, session) as stored:
        archived = add_absent_variables(stored)
        return Normalizer(
            name=name,
            video_offset=_for_videos(archived, 0.0),
            video_scale=_for_videos(archived, 1.0),
            behavior_offset=_for_frames(archived, "behavior", 0.0),
            behavior_scale=_for_frames(archived, "behavior", 1.0),
            pupil_center_offset=_for_frames(archived, "pupil_center", 0.0),
            pupil_center_scale=_for_frames(archived, "pupil_center", 1.0),
            precision=_for_frames(archived, "responses", 1.0),
            competition_precision=read_competition_precision(archived),
            least_response=least_response,
        )


def _for_frames(archived: xr.Dataset, variable: str, value: np.ndarray | float) -> np.ndarray:
    """Return ``value``, (row, 1) or a number, as (row, time) without copying it for every frame."""
    sizes = archived[variable].sizes
    return np.broadcast_to(np.asarray(value, np.float32), [n for dim, n in sizes.items() if dim != "statistic"])


def _for_videos(archived: xr.Dataset, value: np.ndarray | float) -> np.ndarray:
    """Return a number as (time, height, width)."""
    return _for_frames(archived, "videos", np.asarray(value, np.float32).reshape(()))


def _require_statistics(train: xr.Dataset, session: str, axes: StatisticsAxes) -> None:
    found, name = find_session(session), train.attrs.get("session")
    if name != found.name or train.attrs.get("axes") != axes:
        raise UsageError(
            "these are not the statistics that the normalization needs",
            session=found,
            found=f"statistics of {name} over {train.attrs.get('axes')}",
            expected=f"statistics of {found.name} over {axes}",
            remedy="compute them with compute_train_statistics",
        )
