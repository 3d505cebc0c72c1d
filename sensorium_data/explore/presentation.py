"""The trials of a session on the time line on which they were shown."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.layout import arrange_session, frame_numbers, session_name
from sensorium_data.schema import PRESENTATION_RATE_HZ

__all__ = ["order_by_presentation"]


def order_by_presentation(dataset: xr.Dataset) -> xr.Dataset:
    """Return the trials in the order in which they were shown, with the time of every frame; nothing large is read.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials. Trials whose place is not known are left out.

    Returns
    -------
    xarray.Dataset
        With the coordinate ``session_time`` (trial, time): seconds from the session's first frame, at the rate at
        which frames were shown (29.967 Hz); NaN past a trial's valid frames, and where the trial's onset is not known.

    Raises
    ------
    UsageError
        If the place of no trial is known.
    """
    dataset = arrange_session(dataset, "n_frames", "time", dims=["trial"])
    places = dataset["presentation"].values if "presentation" in dataset.coords else np.full(dataset.sizes["trial"], -1)
    known = np.flatnonzero(places >= 0)
    if len(known) == 0:
        raise UsageError(
            "the order of presentation is not known",
            session=session_name(dataset),
            found=f"{dataset.sizes['trial']} trials without a place",
            expected="`presentation` of 0 or more",
            remedy="ingest the session again if its store is of an earlier version; else go on without the order",
        )
    ordered = dataset.isel(trial=known[np.argsort(places[known], kind="stable")])
    # The place on the session's own axis, also if the caller has cut frames away.
    frames = frame_numbers(ordered)
    ordered = arrange_session(ordered, "onset")
    seconds = ordered["onset"].values[:, np.newaxis] + frames / PRESENTATION_RATE_HZ
    shown = frames < ordered["n_frames"].values[:, np.newaxis]
    return ordered.assign_coords(
        session_time=(
            ("trial", "time"),
            np.where(shown, seconds, np.nan),
            {"long_name": "time from the session's first frame", "units": "s"},
        )
    )
