"""Events within trials, such as the onset of running, and the mean response around them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view

from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_integer, parse_labels, parse_number, show_value
from sensorium_data.explore.blocks import TrialBlock, find_counted, label_neurons, map_blocks
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.explore.lookup import find_position
from sensorium_data.explore.means import find_channel
from sensorium_data.schema import FRAME_RATE_HZ

__all__ = ["average_events", "find_running_onsets"]

_COLUMNS = ["trial", "frame"]


def find_running_onsets(
    dataset: xr.Dataset, *, threshold: float = 1.0, rest_frames: int = 30, run_frames: int = 15
) -> pd.DataFrame:
    """Return when the mouse begins to run, within trials. Behavior is read, nothing else.

    An onset is a frame above the threshold that follows ``rest_frames`` frames at or below it and begins
    ``run_frames`` frames above it, all in the valid frames of one trial. A frame without a value is neither.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it. Valid trials count, withheld ones too: their behavior is there.
    threshold : float
        Running speed, in the recording's units.
    rest_frames, run_frames : int
        1 or more.

    Returns
    -------
    pandas.DataFrame
        ``trial`` (id) and ``frame``, in the order of the dataset; no row where there is no onset.

    Raises
    ------
    UsageError
        If the recording has no running speed.
    """
    rest_frames = parse_integer(rest_frames, "rest_frames", least=1)
    run_frames = parse_integer(run_frames, "run_frames", least=1)
    threshold = parse_number(threshold, "threshold")
    dataset = arrange_session(dataset, "valid", unique=["trial"], whole_start=True)
    row = find_channel(dataset, "running_speed")
    positions = np.flatnonzero(dataset["valid"].values)

    def find(block: TrialBlock) -> list[tuple[int, int]]:
        speed = block.behavior[row]
        if len(speed) < rest_frames + run_frames:
            return []
        rests: npt.NDArray[np.bool_] = np.all(sliding_window_view(speed <= threshold, rest_frames), axis=1)
        runs: npt.NDArray[np.bool_] = np.all(sliding_window_view(speed > threshold, run_frames), axis=1)
        # The window of rest that begins at frame k ends right before frame k + rest_frames.
        frames = np.flatnonzero(rests[: len(runs) - rest_frames] & runs[rest_frames:]) + rest_frames
        return [(block.trial, int(frame)) for frame in frames]

    onsets = [onset for found in map_blocks(dataset, positions, ["behavior"], find) for onset in found]
    return pd.DataFrame(onsets, columns=_COLUMNS, dtype=np.int64)


def average_events(
    dataset: xr.Dataset,
    events: pd.DataFrame | Iterable[tuple[int, int]],
    window: tuple[int, int] = (-15, 45),
    *,
    jobs: int | None = None,
) -> xr.DataArray:
    """Return each neuron's mean response around events.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it.
    events : pandas.DataFrame or iterable of (int, int)
        Trial ids and frames: columns ``trial`` and ``frame``, or pairs.
    window : (int, int)
        First and last frame, counted from the event, both included.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.DataArray
        (neuron, lag), with the coordinates ``lag`` (frames from the event) and ``lag_s`` (seconds). Events whose window
        reaches beyond the valid frames, and those of withheld or broken trials, are left out; ``attrs`` has
        ``n_events``, those that counted, and ``n_events_given``. NaN for a neuron that lacks a value in a window.

    Raises
    ------
    UsageError
        If an event's trial is not in the dataset, if the window or an event is none, or if no event counts.
    """
    first, last = _parse_window(window)
    dataset = arrange_session(dataset, "responses", unique=["trial"], whole_start=True)
    frames_of = _group_events(dataset, events)
    counted = set(find_counted(dataset).tolist())
    positions = sorted(set(frames_of) & counted)
    lags = np.arange(first, last + 1)
    total, n_events = np.zeros((dataset.sizes["neuron"], len(lags))), 0

    def add_up(block: TrialBlock) -> tuple[int, npt.NDArray[np.float64]]:
        added, n = np.zeros((len(block.responses), len(lags))), 0
        for frame in frames_of[block.position]:
            if frame + first >= 0 and frame + last < block.n_frames:
                added += block.responses[:, frame + first : frame + last + 1]
                n += 1
        return n, added

    for n, added in map_blocks(dataset, positions, ["responses"], add_up, jobs=jobs):
        total += added
        n_events += n
    n_given = sum(len(frames) for frames in frames_of.values())
    if n_events == 0:
        raise UsageError(
            "no event to average responses around",
            session=session_name(dataset),
            found=f"{n_given} events, in {len(positions)} trials that count",
            expected=f"an event with frames {first} to {last} around it in a valid trial whose responses are there",
            remedy="give more events, a shorter window, or trials whose responses are published",
        )
    return xr.DataArray(
        total / n_events,
        dims=("neuron", "lag"),
        coords={
            **label_neurons(dataset),
            "lag": ("lag", lags, {"long_name": "frames from the event", "units": "frames"}),
            "lag_s": ("lag", lags / FRAME_RATE_HZ, {"long_name": "time from the event", "units": "s"}),
        },
        name="event_average",
        attrs={
            "long_name": "mean response around events",
            "units": str(dataset["responses"].attrs.get("units", "arbitrary units")),
            "n_events": n_events,
            "n_events_given": n_given,
        },
    )


def _parse_window(window: tuple[int, int]) -> tuple[int, int]:
    try:
        first, last = (int(end) for end in window)
        is_range = first <= last and (first, last) == tuple(window)
    except (TypeError, ValueError, OverflowError):
        is_range = False
    if not is_range:
        raise UsageError("no window of frames", found=window, expected="first and last frame, as (-15, 45)")
    return first, last


def _group_events(dataset: xr.Dataset, events: pd.DataFrame | Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Return the frames of the events by the place of their trial."""
    if isinstance(events, pd.DataFrame):
        missing = [name for name in _COLUMNS if name not in events]
        if missing:
            raise UsageError(
                "no table of events", found=f"columns {', '.join(map(str, events))}", expected="columns trial and frame"
            )
        pairs: list[object] = list(events[_COLUMNS].itertuples(index=False, name=None))
    else:
        try:
            pairs = list(events)
        except TypeError:
            raise UsageError(
                "no events",
                found=show_value(events),
                expected="a table with the columns trial and frame, or pairs as [(12, 40)]",
            ) from None
    grouped: dict[int, list[int]] = {}
    for pair in pairs:
        try:
            trial, frame = parse_labels(pair, "trial")
        except (UsageError, ValueError):
            raise UsageError(
                "no event", found=show_value(pair), expected="a trial's id and a frame, as (12, 40)"
            ) from None
        grouped.setdefault(find_position(dataset, "trial", trial), []).append(frame)
    return grouped
