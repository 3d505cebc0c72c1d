"""Responses on the scale of a published model or of the competition's server."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.layout import arrange_session, frame_numbers, session_name
from sensorium_data.statistics import NORMALIZATIONS, open_normalizer
from sensorium_data.store import SOURCE_KEY, StoreLike, open_store

__all__ = ["standardize_responses"]


def standardize_responses(dataset: xr.Dataset, normalization: str, *, store: StoreLike | None = None) -> xr.DataArray:
    """Return the responses as a normalization scales them; they are not read yet.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session that was opened from a store, or a selection of its trials, neurons and frames.
    normalization : str
        One of :data:`sensorium_data.statistics.NORMALIZATIONS`. ``competition`` is the scale on which the competition
        scores. Those of ViV1T read the session's training trials first.
    store : Store or path, optional
        Where the session's statistics are; by default the store that the dataset was opened from.

    Returns
    -------
    xarray.DataArray
        As ``responses``, with the name of the normalization in ``attrs["normalization"]``; NaN stays NaN.

    Raises
    ------
    UnknownNameError
        If no normalization has this name.
    UsageError
        If the dataset does not say which store it is from, or the session has no statistics of every frame.
    StoreError
        If the session cannot be opened.
    """
    if normalization not in NORMALIZATIONS:
        raise UnknownNameError.of("normalization", str(normalization), NORMALIZATIONS)
    dataset = arrange_session(dataset, "responses", "neuron", "time")
    done = dataset["responses"].attrs.get("normalization")
    if done not in (None, "none"):
        raise UsageError(
            "the responses are normalized already",
            session=session_name(dataset),
            found=f"normalization {done}",
            expected="responses as recorded",
            remedy="take them from the session as it was opened",
        )
    source = dataset.encoding.get(SOURCE_KEY) if store is None else store
    name = session_name(dataset)
    if source is None or name is None:
        raise UsageError(
            "the dataset does not say which store it was opened from",
            session=name,
            remedy="give store=, its path or URL: some of xarray's methods, such as where, do not keep it",
        )
    opened = open_store(source)
    statistics = opened.statistics(name)
    if "responses" not in statistics or "time" not in statistics["responses"].dims:
        raise UsageError(
            f"the normalization {normalization} needs statistics of the responses at every frame",
            session=name,
            path=opened.url,
            found="one statistic a neuron" if "responses" in statistics else "no statistics of responses",
            expected="statistics with a time axis",
            remedy="use a session whose archive has them",
        )
    normalizer = open_normalizer(normalization, opened, name)
    rows = _find(statistics["neuron"].values, dataset["neuron"].values, name)
    precision = normalizer.precision[np.ix_(rows, frame_numbers(dataset))]
    factors = xr.DataArray(precision, dims=("neuron", "time"))
    if dataset["responses"].chunks is not None:
        factors = factors.chunk()
    responses = dataset["responses"]
    scaled = (responses * factors).astype(np.float32).transpose(*responses.dims)
    if normalizer.least_response > -np.inf:
        scaled = scaled.clip(min=normalizer.least_response)
    return scaled.rename("responses").assign_attrs(
        long_name=f"{responses.attrs.get('long_name', 'responses')}, normalized",
        units="1" if normalization not in ("none", "dwiseneuro") else responses.attrs.get("units", ""),
        normalization=normalization,
    )


def _find(known: np.ndarray, wanted: np.ndarray, session: str) -> np.ndarray:
    """Return the places of unit ids among the session's."""
    order = np.argsort(known, kind="stable")
    places = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    strange = wanted[known[places] != wanted]
    if len(strange):
        raise UsageError(
            "a neuron that the session's statistics lack",
            session=session,
            found=int(strange[0]),
            remedy="give the store that the session was opened from",
        )
    return places
