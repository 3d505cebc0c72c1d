"""Which trials and neurons are meant: by tier, stimulus, movie, depth and reliability."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.arguments import parse_flag, parse_names, parse_number, show_value
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.sessions import Stimulus, Tier

__all__ = ["match_movies", "match_tiers", "parse_bounds", "select_neurons", "select_trials"]


def select_trials(
    dataset: xr.Dataset,
    *,
    tier: str | Iterable[str] | None = None,
    stimulus: str | Iterable[str] | None = None,
    movie: str | Iterable[str] | None = None,
    valid: bool = True,
) -> xr.Dataset:
    """Return some trials of a session; nothing large is read.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials.
    tier : str or iterable of str, optional
        Names of tiers, among them other labs' that the session has; ``test`` for the four test tiers, ``all`` for all.
    stimulus : str or iterable of str, optional
        Classes, such as ``Gabor``.
    movie : str or iterable of str, optional
        Ids of ``movie`` or ``movie_group``.
    valid : bool
        Leave out the broken trials.

    Raises
    ------
    UnknownNameError
        If there is no tier, class or movie of a name.
    """
    valid = parse_flag(valid, "valid")
    coordinates = {"valid": valid, "tier": tier is not None, "stimulus": stimulus is not None}
    needed = [name for name, is_needed in coordinates.items() if is_needed]
    dataset = arrange_session(dataset, *needed, dims=["trial"])
    chosen = dataset["valid"].values.astype(bool) if valid else np.ones(dataset.sizes["trial"], bool)
    if tier is not None:
        chosen = chosen & match_tiers(dataset, parse_names(tier, "tier"))
    if stimulus is not None:
        classes = [_parse_stimulus(name) for name in parse_names(stimulus, "stimulus")]
        chosen = chosen & np.isin(dataset["stimulus"].values, classes)
    if movie is not None:
        chosen = chosen & np.any([match_movies(dataset, name) for name in parse_names(movie, "movie")], axis=0)
    return dataset.isel(trial=np.flatnonzero(chosen))


def select_neurons(
    dataset: xr.Dataset,
    *,
    depth: tuple[float, float] | None = None,
    reliability: xr.DataArray | None = None,
    min_reliability: float | None = None,
) -> xr.Dataset:
    """Return some neurons of a session.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session.
    depth : (float, float), optional
        Least and largest ``z``, micrometers, both included.
    reliability : xarray.DataArray, optional
        (neuron,), of the same neurons.
    min_reliability : float, optional
        The least reliability; a neuron without one (NaN) is left out.

    Raises
    ------
    UsageError
        If the recording has no positions, or the bounds of the depth are in the wrong order.
    """
    if depth is None and min_reliability is None:
        return dataset
    dataset = arrange_session(dataset, dims=["neuron"])
    chosen = np.ones(dataset.sizes["neuron"], bool)
    if depth is not None:
        low, high = parse_bounds(depth, "depth")
        if "z" not in dataset.coords:
            raise UsageError(
                "the recording has no positions of neurons", session=session_name(dataset), remedy="leave depth out"
            )
        depths = dataset["z"].values
        chosen &= (depths >= low) & (depths <= high)
    if min_reliability is not None and reliability is not None:
        # A comparison with NaN is false.
        chosen &= reliability.values >= parse_number(min_reliability, "min_reliability")
    return dataset.isel(neuron=np.flatnonzero(chosen))


def match_tiers(dataset: xr.Dataset, names: Iterable[str]) -> np.ndarray:
    """Return which trials are of some tiers, by the words that the command line knows; (trial,) bool."""
    dataset = arrange_session(dataset, "tier")
    tiers = dataset["tier"].values.astype(str)
    present = set(tiers.tolist())
    wanted: set[str] = set()
    for name in names:
        match name:
            case "all":
                wanted |= present
            case "test":
                wanted |= {tier for tier in present if Tier(tier).is_test or tier == name}
            case _:
                wanted.add(str(Tier.parse(name, present)))
    return np.isin(tiers, sorted(wanted))


def match_movies(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Return which trials show a movie, given by an id of ``movie`` or of ``movie_group``; (trial,) bool.

    Raises
    ------
    UnknownNameError
        If no trial shows it.
    """
    dataset = arrange_session(dataset, "movie")
    movies = dataset["movie"].values.astype(str)
    groups = dataset["movie_group"].values.astype(str) if "movie_group" in dataset.coords else movies
    meant = (movies == name) | (groups == name)
    if not name or not meant.any():
        raise UnknownNameError.of(
            "movie",
            name,
            [str(one) for one in dict.fromkeys([*movies, *groups])],
            remedy="see `dataset.movie` for the movies there are",
        )
    matched: np.ndarray = np.isin(groups, groups[meant])
    return matched


def parse_bounds(bounds: tuple[float, float], what: str) -> tuple[float, float]:
    """Return the two ends of a range; a :class:`UsageError` if they are no such ends."""
    try:
        low, high = (float(end) for end in bounds)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not low <= high:
        raise UsageError(
            f"no range of {what}", found=show_value(bounds), expected="the least and the largest value, as (200, 300)"
        )
    return low, high


def _parse_stimulus(name: str) -> str:
    try:
        return str(Stimulus(name))
    except ValueError:
        raise UnknownNameError.of("stimulus", name, [str(stimulus) for stimulus in Stimulus]) from None
