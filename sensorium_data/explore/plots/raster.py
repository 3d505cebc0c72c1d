"""The whole population in one trial, as an image: a row for each neuron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_flag, parse_labels
from sensorium_data.explore.lookup import find_position, require_frames, require_variable
from sensorium_data.explore.plots.parts import RESPONSE_LABEL, TIME_LABEL, has_neighbors, make_axes, name_trial
from sensorium_data.picture_style import picture_style, say_instead

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_raster", "order_by_correlation"]

_MOST_LABELS = 30
# Of the values, so many per cent are below the darkest shade.
_BRIGHTEST_PERCENTILE = 99.5


def draw_raster(block: xr.Dataset, order: Sequence[int] | None, *, standardize: bool, ax: Axes | None) -> Axes:
    """Draw the responses of a trial; see :meth:`SensoriumAccessor.plot_raster`."""
    require_frames(block)
    responses = require_variable(block, "responses")
    standardize = parse_flag(standardize, "standardize")
    is_withheld = bool(block.responses_withheld)
    if order is None:
        values = np.asarray(responses.values, np.float32)
        positions = np.arange(len(values)) if is_withheld else order_by_correlation(values)
        sorting = "similar responses next to each other"
        values = values[positions]
    else:
        units = parse_labels(order, "neuron")
        if len(set(units)) < len(units):
            raise UsageError(
                "the order names a neuron twice",
                session=block.attrs.get("session"),
                found=f"{len(units)} unit ids, {len(set(units))} of them different",
                expected="each unit id once",
            )
        positions = np.array([find_position(block, "neuron", unit) for unit in units], int)
        sorting = "order as given"
        values = np.asarray(responses.isel(neuron=positions).values, np.float32)
    units_shown = block.neuron.values[positions]
    label = RESPONSE_LABEL
    if standardize:
        values = values / _spread(values)[:, np.newaxis]
        label = "response (standard deviations in this trial)"
    with picture_style():
        axes = make_axes(ax, 7, 4)
        is_small = has_neighbors(ax)
        axes.set_title(name_trial(block, short=is_small), wrap=not is_small)
        sorting = "" if is_small else f", {sorting}"
        axes.set(xlabel=TIME_LABEL, ylabel=f"{count_things(len(values), 'neuron')}{sorting}")
        finite = values[np.isfinite(values)]
        if is_withheld or not len(finite):
            axes.set_yticks([])
            nothing = "no response is known" if len(values) else "no neuron"
            say_instead(axes, "responses withheld" if is_withheld else nothing)
            return axes
        seconds = block.time.values
        half = (seconds[1] - seconds[0]) / 2 if len(seconds) > 1 else 0.5
        brightest = float(np.percentile(finite, _BRIGHTEST_PERCENTILE))
        image = axes.imshow(
            values,
            aspect="auto",
            origin="upper",
            cmap="gray_r",
            vmin=0.0,
            vmax=brightest or 1.0,
            # Many more rows than pixels are averaged.
            interpolation="antialiased",
            extent=(seconds[0] - half, seconds[-1] + half, len(values) - 0.5, -0.5),
        )
        if is_small:
            label = label.replace("standard deviations in this trial", "s.d.").replace("arbitrary units", "a.u.")
        axes.figure.colorbar(image, ax=axes, label=label, extend="max", pad=0.02)
        if len(values) <= _MOST_LABELS:
            axes.set_yticks(np.arange(len(values)), [str(unit) for unit in units_shown])
            axes.set_ylabel(f"unit id{sorting}")
    return axes


def order_by_correlation(responses: np.ndarray) -> np.ndarray:
    """Return an order of neurons in which those whose responses correlate stand next to each other.

    Neurons are sorted by the angle of their loadings on the first two principal components of their standardized
    responses.

    Parameters
    ----------
    responses : np.ndarray
        (neuron, time).

    Returns
    -------
    np.ndarray
        (neuron,) positions.
    """
    values = np.nan_to_num(np.asarray(responses, np.float64))
    if len(values) < 3:
        return np.arange(len(values))
    standardized = values - values.mean(axis=1, keepdims=True)
    standardized /= _spread(values)[:, np.newaxis]
    # By the smaller matrix of products: neurons can be thousands, frames are hundreds.
    _, components = np.linalg.eigh(standardized.T @ standardized)
    loadings = standardized @ components[:, -2:]
    if loadings.shape[1] < 2:
        return np.argsort(-loadings[:, 0], kind="stable")
    # The sign of a component is arbitrary; this one does not depend on the library.
    loadings *= np.where(loadings[np.abs(loadings).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    return np.argsort(np.arctan2(loadings[:, 0], loadings[:, 1]), kind="stable")


def _spread(values: np.ndarray) -> np.ndarray:
    """Return each row's standard deviation over what is finite; 1 where it is 0."""
    finite = np.where(np.isfinite(values), values, np.nan)
    n_finite = np.isfinite(finite).sum(axis=1)
    mean = np.nansum(finite, axis=1) / np.maximum(n_finite, 1)
    spread = np.sqrt(np.nansum((finite - mean[:, np.newaxis]) ** 2, axis=1) / np.maximum(n_finite, 1))
    return np.where(spread > 0, spread, 1.0)
