"""Mean responses: to classes of stimulus, and in two states of the mouse."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.arguments import parse_integer, parse_number
from sensorium_data.explore.blocks import TrialBlock, find_counted, label_neurons, map_blocks, require_counted
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.sessions import Stimulus

__all__ = ["LEAST_STATE_FRAMES", "StateOf", "average_by_state", "average_by_stimulus", "find_channel"]

#: What a state is a state of.
StateOf = Literal["running", "pupil"]

#: With fewer frames than this in a state, there is no mean response in it: two seconds.
LEAST_STATE_FRAMES = 60

_CHANNELS = {"running": "running_speed", "pupil": "pupil_dilation"}
_RUNNING_THRESHOLD = 1.0

Sums = npt.NDArray[np.float64]


def average_by_stimulus(dataset: xr.Dataset, *, skip_frames: int = 0, jobs: int | None = None) -> xr.DataArray:
    """Return each neuron's mean response to each class of stimulus.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it. Valid trials whose responses are there count, and all frames alike.
    skip_frames : int
        Frames left out at the start of every trial.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.DataArray
        (neuron, stimulus), the classes that the dataset has, with the coordinate ``n_trials`` (stimulus) that counted.
        NaN for a class of which none counted, and for a neuron that lacks a value in a trial of the class.

    Raises
    ------
    UsageError
        If no trial counts.
    """
    skip_frames = parse_integer(skip_frames, "skip_frames", least=0)
    dataset = arrange_session(dataset, "responses", "stimulus", whole_start=True)
    shown = dataset["stimulus"].values.astype(str)
    order = [str(one) for one in Stimulus]
    classes = sorted(set(shown.tolist()), key=lambda one: (order.index(one) if one in order else len(order), one))
    positions = find_counted(dataset)
    require_counted(dataset, positions, "mean responses")
    sums: Sums = np.zeros((dataset.sizes["neuron"], len(classes)))
    n_frames, n_trials = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)

    def add_up(block: TrialBlock) -> tuple[int, int, Sums]:
        values = block.responses[:, skip_frames:]
        return block.position, values.shape[1], values.sum(axis=1, dtype=np.float64)

    for position, n, total in map_blocks(dataset, positions, ["responses"], add_up, jobs=jobs):
        column = classes.index(shown[position])
        sums[:, column] += total
        n_frames[column] += n
        n_trials[column] += n > 0
    means = np.where(n_frames > 0, sums / np.maximum(n_frames, 1), np.nan)
    return xr.DataArray(
        means,
        dims=("neuron", "stimulus"),
        coords={**label_neurons(dataset), "stimulus": classes, "n_trials": ("stimulus", n_trials)},
        name="stimulus_means",
        attrs=_response_attributes(dataset, "mean response by class of stimulus"),
    )


def average_by_state(
    dataset: xr.Dataset, state: str, *, threshold: float | None = None, jobs: int | None = None
) -> xr.Dataset:
    """Return each neuron's mean response while the mouse runs and rests, or while its pupil is wide and narrow.

    The frames of all trials that count are divided by the value of one behavior channel: above the threshold, and at or
    below it. What the mouse sees is not the same in both: compare trials of one movie or class to be sure.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it. Valid trials whose responses are there count; frames without the behavior
        do not.
    state : {"running", "pupil"}
        By running speed or by pupil dilation.
    threshold : float, optional
        In the channel's units; by default 1.0 for running, and the median over the counted frames for the pupil.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.Dataset
        ``response_high`` and ``response_low`` (neuron), and ``modulation_index`` (neuron),
        ``(high - low) / (high + low)``: 1 for a neuron that is active in the high state alone. The numbers of frames
        and the threshold are in ``attrs``. NaN where a state has fewer than 60 frames, for a neuron that lacks a value,
        and as the index of one whose two means do not add up to more than 0.

    Raises
    ------
    UnknownNameError
        If there is no such state.
    UsageError
        If no trial counts, or the recording has no behavior.
    """
    if state not in get_args(StateOf):
        raise UnknownNameError.of("state", str(state), get_args(StateOf))
    if threshold is not None:
        threshold = parse_number(threshold, "threshold")
    dataset = arrange_session(dataset, "responses", whole_start=True)
    row = find_channel(dataset, _CHANNELS[state])
    positions = find_counted(dataset)
    require_counted(dataset, positions, "modulation")
    if threshold is None:
        threshold = _RUNNING_THRESHOLD if state == "running" else _find_median(dataset, positions, row)

    def add_up(block: TrialBlock) -> tuple[npt.NDArray[np.int64], Sums]:
        values = block.behavior[row]
        states = np.stack([values > threshold, values <= threshold], axis=1)
        # A product with zeros would let a missing value of one state into the other.
        sums = np.stack([block.responses[:, chosen].sum(axis=1, dtype=np.float64) for chosen in states.T], axis=1)
        return states.sum(axis=0), sums

    n_frames, sums = np.zeros(2, np.int64), np.zeros((dataset.sizes["neuron"], 2))
    for n, total in map_blocks(dataset, positions, ["responses", "behavior"], add_up, jobs=jobs):
        n_frames += n
        sums += total
    high, low = np.where(n_frames >= LEAST_STATE_FRAMES, sums / np.maximum(n_frames, 1), np.nan).T
    index = np.full(len(high), np.nan)
    np.divide(high - low, high + low, out=index, where=high + low > 0)
    names = ("running", "resting") if state == "running" else ("pupil wide", "pupil narrow")
    return xr.Dataset(
        {
            "response_high": ("neuron", high, _response_attributes(dataset, f"mean response, {names[0]}")),
            "response_low": ("neuron", low, _response_attributes(dataset, f"mean response, {names[1]}")),
            "modulation_index": ("neuron", index, {"long_name": f"modulation by {state}", "units": "1"}),
        },
        coords=label_neurons(dataset),
        attrs={
            "state": state,
            "threshold": float(threshold),
            "n_frames_high": int(n_frames[0]),
            "n_frames_low": int(n_frames[1]),
        },
    )


def find_channel(dataset: xr.Dataset, channel: str) -> int:
    """Return the row of a behavior channel; a :class:`UsageError` if the recording lacks it."""
    dataset = arrange_session(dataset, "behavior", "behavior_channel")
    channels: list[str] = dataset["behavior_channel"].values.astype(str).tolist()
    if channel not in channels:
        raise UsageError(
            f"the recording has no {channel.replace('_', ' ')}",
            session=session_name(dataset),
            found=", ".join(channels) or "no channel",
            expected=channel,
        )
    return channels.index(channel)


def _find_median(dataset: xr.Dataset, positions: np.ndarray, row: int) -> float:
    parts = map_blocks(dataset, positions, ["behavior"], lambda block: np.array(block.behavior[row], np.float64))
    values = np.concatenate(list(parts))
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan


def _response_attributes(dataset: xr.Dataset, long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": str(dataset["responses"].attrs.get("units", "arbitrary units"))}
