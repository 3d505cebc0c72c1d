"""A session's trials and neurons as tables, and a summary of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sensorium_data.explore.blocks import Floats, count_usable, name_movies
from sensorium_data.explore.layout import arrange_session
from sensorium_data.schema import BEHAVIOR_CHANNELS
from sensorium_data.sessions import rank_tier

__all__ = ["describe_trials", "tabulate_neurons", "tabulate_trials"]


def tabulate_trials(dataset: xr.Dataset) -> pd.DataFrame:
    """Return a row for each trial. Behavior is read, nothing else.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials.

    Returns
    -------
    pandas.DataFrame
        By trial id: ``tier``, ``stimulus``, ``movie``, ``movie_group`` (where the dataset has it), ``repeats`` (trials
        of the dataset that show the movie, this one included), ``n_frames``, ``presentation`` (-1 where unknown),
        ``onset`` (seconds, NaN where unknown), ``valid``, ``withheld``, and the means over the trial's valid frames
        ``running_speed`` and ``pupil_dilation``: NaN for a broken trial, for one without behavior, and where a value
        is missing before the end.
    """
    dataset = arrange_session(dataset, "trial", "movie", "n_frames", "valid", "responses_withheld")
    groups = pd.Series(name_movies(dataset))
    # A movie without an id is unlike any other.
    repeats = groups.map(groups.value_counts()).where(groups != "", 1)
    columns: dict[str, npt.ArrayLike] = {}
    for name in ("tier", "stimulus", "movie", "movie_group"):
        if name in dataset.coords:
            columns[name] = dataset[name].values.astype(str).astype(object)
    columns["repeats"] = repeats.to_numpy(np.int64)
    for name in ("n_frames", "presentation", "onset", "valid"):
        if name in dataset.coords:
            columns[name] = dataset[name].values
    columns["withheld"] = dataset["responses_withheld"].values
    means = _average_behavior(dataset)
    for channel in reversed(BEHAVIOR_CHANNELS):
        columns[channel] = means[channel]
    return pd.DataFrame(columns, index=pd.Index(dataset["trial"].values, name="trial"))


def tabulate_neurons(dataset: xr.Dataset, reliability: xr.DataArray | None) -> pd.DataFrame:
    """Return a row for each neuron.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its neurons.
    reliability : xarray.DataArray, optional
        (neuron,); NaN stands in the table without it.

    Returns
    -------
    pandas.DataFrame
        By unit id: ``x``, ``y``, ``z`` in micrometers (NaN where the recording has no positions), and ``reliability``.
    """
    dataset = arrange_session(dataset, "neuron")
    n = dataset.sizes["neuron"]
    columns = {axis: dataset[axis].values if axis in dataset.coords else np.full(n, np.nan) for axis in ("x", "y", "z")}
    columns["reliability"] = np.full(n, np.nan) if reliability is None else reliability.values
    return pd.DataFrame(columns, index=pd.Index(dataset["neuron"].values, name="neuron"))


def describe_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of trials, by tier and class of stimulus.

    Parameters
    ----------
    trials : pandas.DataFrame
        What :func:`tabulate_trials` returns.

    Returns
    -------
    pandas.DataFrame
        By ``tier`` and ``stimulus``, in the order of the tiers: ``trials``, ``movies``, ``most_repeats``,
        ``shortest`` and ``longest`` (frames of valid trials), ``withheld``, ``broken``, and the means of
        ``running_speed`` and ``pupil_dilation`` over the trials.
    """
    group = "movie_group" if "movie_group" in trials else "movie"
    rows = []
    for (tier, stimulus), part in trials.groupby(["tier", "stimulus"], sort=False):
        # Within the tier: some movies are shown in several.
        shown = part[group].value_counts()
        lengths = part.loc[part["valid"].astype(bool), "n_frames"]
        rows.append(
            {
                "tier": tier,
                "stimulus": stimulus,
                "trials": len(part),
                "movies": len(shown),
                "most_repeats": int(shown.max()),
                "shortest": int(lengths.min()) if len(lengths) else 0,
                "longest": int(lengths.max()) if len(lengths) else 0,
                "withheld": int(part["withheld"].sum()),
                "broken": int((~part["valid"].astype(bool)).sum()),
                "running_speed": part["running_speed"].mean(),
                "pupil_dilation": part["pupil_dilation"].mean(),
            }
        )
    rows.sort(key=lambda row: (rank_tier(str(row["tier"])), str(row["stimulus"])))
    columns = ["tier", "stimulus", "trials", "movies", "most_repeats", "shortest", "longest", "withheld", "broken",
               "running_speed", "pupil_dilation"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index(["tier", "stimulus"])


def _average_behavior(dataset: xr.Dataset) -> dict[str, Floats]:
    """Return each channel's mean over the valid frames of each trial, (trial,)."""
    n_trials = dataset.sizes["trial"]
    means = {channel: np.full(n_trials, np.nan) for channel in BEHAVIOR_CHANNELS}
    if "behavior" not in dataset:
        return means
    dataset = arrange_session(dataset, "behavior", "behavior_channel", "valid", whole_start=True)
    channels = dataset["behavior_channel"].values.astype(str).tolist()
    lengths = np.where(dataset["valid"].values, dataset["n_frames"].values, 0)
    # A session's behavior is one chunk, and small.
    values = np.asarray(dataset["behavior"].transpose("trial", "behavior_channel", "time").values, np.float64)
    for channel in set(channels) & set(means):
        row = channels.index(channel)
        for position in range(n_trials):
            n_frames = count_usable(values[position, row], int(lengths[position]))
            if n_frames:
                means[channel][position] = values[position, row, :n_frames].mean()
    return means
