"""A trial in one picture: frames of its video, responses, behavior and pupil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.explore.arguments import parse_labels
from sensorium_data.explore.lookup import find_position, require_frames, require_variable
from sensorium_data.explore.plots.parts import TIME_LABEL, draw_channels, draw_frames, make_figure, name_trial
from sensorium_data.picture_style import picture_style, say_instead
from sensorium_data.schema import VARIABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_trial", "draw_trial_behavior", "draw_trial_frames"]

_N_NEURONS_SHOWN = 20
_MOST_NEURONS = 200
_N_FRAMES_SHOWN = 8
_ROW_HEIGHT, _LEAST_HEIGHT, _MOST_HEIGHT = 0.17, 1.2, 12.0
# All rows share one scale. The largest response rises over so many rows, so that smaller ones can be seen.
_ROWS_OF_LARGEST = 2.0
_MOST_LABELS = 60


def draw_trial(block: xr.Dataset, neurons: Sequence[int] | None) -> Figure:
    """Draw a trial that is cut to its valid frames; see :meth:`SensoriumAccessor.plot_trial`."""
    require_frames(block)
    responses = _choose_rows(block, neurons)
    n_rows = responses.sizes["neuron"]
    is_withheld = bool(block.responses_withheld)
    height = float(np.clip(_ROW_HEIGHT * n_rows * (not is_withheld), _LEAST_HEIGHT, _MOST_HEIGHT))
    with picture_style():
        figure = make_figure(8, height + 5.0)
        grid = figure.add_gridspec(5, _N_FRAMES_SHOWN, height_ratios=(0.8, height, 0.95, 0.95, 0.95))
        draw_frames([figure.add_subplot(grid[0, column]) for column in range(_N_FRAMES_SHOWN)], block)
        axes = figure.add_subplot(grid[1, :])
        _draw_rows(axes, responses, is_withheld=is_withheld)
        below = [figure.add_subplot(grid[row, :], sharex=axes) for row in (2, 3, 4)]
        draw_channels(below, block)
        for one in (axes, *below[:-1]):
            one.tick_params(labelbottom=False)
        below[-1].set_xlabel(TIME_LABEL)
        _set_time_limits(axes, block)
        figure.align_ylabels()
        figure.suptitle(name_trial(block), wrap=True)
    return figure


def draw_trial_frames(block: xr.Dataset, n_frames: int) -> Figure:
    """Draw frames of a trial's video, evenly spaced over its length."""
    require_frames(block)
    with picture_style():
        figure = make_figure(1.2 * n_frames, 1.3)
        axes = figure.subplots(1, n_frames, squeeze=False)
        draw_frames(list(axes[0]), block)
        if n_frames >= 4:
            figure.suptitle(name_trial(block), wrap=True)
            figure.set_figheight(1.6)
    return figure


def draw_trial_behavior(block: xr.Dataset) -> Figure:
    """Draw running speed, pupil dilation and the pupil's position in one trial."""
    require_frames(block)
    with picture_style():
        figure = make_figure(7, 4)
        rows = figure.subplots(3, 1, sharex=True).tolist()
        draw_channels(rows, block)
        rows[-1].set_xlabel(TIME_LABEL)
        _set_time_limits(rows[0], block)
        figure.suptitle(name_trial(block), wrap=True)
    return figure


def _set_time_limits(axes: Axes, block: xr.Dataset) -> None:
    seconds = block.time.values
    if len(seconds) > 1:
        axes.set_xlim(seconds[0], seconds[-1])


def _choose_rows(block: xr.Dataset, neurons: Sequence[int] | None) -> xr.DataArray:
    """Return the responses of the neurons asked for, or of those that respond most strongly in this trial."""
    responses = require_variable(block, "responses")
    if neurons is not None:
        chosen = [find_position(block, "neuron", unit) for unit in parse_labels(neurons, "neuron")[:_MOST_NEURONS]]
        return responses.isel(neuron=chosen).compute()
    responses = responses.compute()
    order = np.argsort(-np.nan_to_num(responses.values).max(axis=1), kind="stable")[:_N_NEURONS_SHOWN]
    return responses.isel(neuron=np.sort(order))


def _draw_rows(axes: Axes, responses: xr.DataArray, *, is_withheld: bool) -> None:
    """Draw a row for each neuron, on one scale that a bar gives."""
    n_rows = responses.sizes["neuron"]
    axes.set_ylabel(f"{count_things(n_rows, 'neuron')} (unit id)")
    axes.set_yticks([])
    if is_withheld or n_rows == 0:
        say_instead(axes, "responses withheld" if is_withheld else "no neuron")
        return
    values = responses.values
    finite = values[np.isfinite(values)]
    if not len(finite):
        say_instead(axes, "no response is known")
        return
    largest = float(finite.max(initial=0.0))
    per_row = largest / _ROWS_OF_LARGEST if largest > 0 else 1.0
    # The first neuron stands at the top.
    bases = np.arange(n_rows)[::-1]
    axes.plot(responses.time.values, (values / per_row + bases[:, np.newaxis]).T, linewidth=0.8, color="black")
    step = -(-n_rows // _MOST_LABELS)
    axes.set_yticks(bases[::step], [str(unit) for unit in responses.neuron.values[::step]])
    axes.tick_params(axis="y", labelsize=7, length=0)
    axes.set_ylim(-0.5, n_rows - 1 + _ROWS_OF_LARGEST + 0.2)
    if largest > 0:
        _draw_scale_bar(axes, per_row)


def _draw_scale_bar(axes: Axes, per_row: float) -> None:
    """Draw a bar at the right edge that is a round number of units high."""
    size = round_down(per_row * _ROWS_OF_LARGEST)
    transform = axes.get_yaxis_transform()
    axes.annotate(
        "",
        (1.015, 0),
        (1.015, size / per_row),
        xycoords=transform,
        textcoords=transform,
        arrowprops={"arrowstyle": "-", "color": "black", "linewidth": 2, "shrinkA": 0, "shrinkB": 0},
        annotation_clip=False,
    )
    axes.text(
        1.025, size / per_row / 2, f"{size:g} {VARIABLES['responses'].units}", transform=transform, rotation=90,
        va="bottom", fontsize=7,
    ).set_gid("scale bar")  # fmt: skip


def round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a positive number.

    Examples
    --------
    >>> [round_down(value) for value in (7.0, 0.03, 20.0)]
    [5.0, 0.02, 20.0]
    """
    power = float(10.0 ** np.floor(np.log10(value)))
    return float(f"{max(digit for digit in (1, 2, 5) if digit * power <= value * (1 + 1e-9)) * power:.12g}")
