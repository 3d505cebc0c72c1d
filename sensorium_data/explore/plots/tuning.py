"""How a neuron's response depends on the direction of movement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.lookup import find_position, require_variable
from sensorium_data.explore.plots.parts import RESPONSE_LABEL, has_neighbors, make_axes, name_session
from sensorium_data.picture_style import VERMILLION, picture_style, say_instead

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_tuning"]

_INDICES = (
    ("orientation_selectivity", "orientation_p", "orientation selectivity"),
    ("direction_selectivity", "direction_p", "direction selectivity"),
)

# What a test finds less unlikely than this is not marked.
_LEAST_CERTAIN_P = 0.05


def draw_tuning(dataset: xr.Dataset, tuning: xr.Dataset, neuron: int, ax: Axes | None) -> Axes:
    """Draw a neuron's tuning curve; see :meth:`SensoriumAccessor.plot_tuning`."""
    if not isinstance(tuning, xr.Dataset) or "direction" not in tuning.coords:
        raise UsageError(
            "no tuning",
            session=dataset.attrs.get("session"),
            found=type(tuning).__name__,
            expected="a Dataset with `response` and the coordinate direction",
        )
    position = find_position(tuning, "neuron", neuron)
    one = tuning.isel(neuron=position)
    order = np.argsort(one.direction.values)
    degrees = one.direction.values[order].astype(float)
    response = np.asarray(require_variable(one, "response").transpose("direction").values, float)[order]
    title = ", ".join(part for part in (name_session(dataset), f"neuron {neuron}") if part)
    facts = [fact for names in _INDICES if (fact := _say_index(one, *names))]
    from matplotlib.projections.polar import PolarAxes

    with picture_style():
        axes = make_axes(ax, 4.5, 3.2)
        is_small = has_neighbors(ax)
        facts = [] if is_small else facts
        axes.set_title("\n".join([title, *facts]), fontsize=9)
        if not np.isfinite(response).any():
            axes.set(xlabel="direction (degrees)", ylabel=RESPONSE_LABEL)
            say_instead(axes, "no response known")
            return axes
        is_polar = isinstance(axes, PolarAxes)
        # The circle closes: the first direction is drawn once more behind the last.
        around, closed = np.append(degrees, degrees[0] + 360), np.append(response, response[0])
        axes.plot(np.deg2rad(around) if is_polar else around, closed, color="black", marker="o", markersize=4)
        marks, fact = _choose_marks(one)
        for mark in marks:
            axes.axvline(np.deg2rad(mark) if is_polar else mark, color=VERMILLION, linestyle="--")
        if fact and not is_small:
            axes.set_title("\n".join([title, *facts, f"{fact} (dashed)"]), fontsize=9)
        if isinstance(axes, PolarAxes):
            # As on the screen: 90 degrees is downward.
            axes.set_theta_direction(-1)
            axes.set_xlabel(RESPONSE_LABEL, fontsize=8)
        else:
            axes.set(xlabel="direction (degrees)", ylabel=RESPONSE_LABEL, xticks=np.arange(0, 361, 90))
            axes.set_ylim(bottom=min(0.0, float(np.nanmin(response))))
    return axes


def _choose_marks(one: xr.Dataset) -> tuple[list[float], str]:
    """Return where to mark what the neuron prefers, in degrees, and what that is.

    The preferred direction is marked unless its test says that it may be chance. Then both directions along
    the preferred axis of drift are, unless the same holds of it.
    """
    kinds = (("direction", "direction", 1), ("orientation", "axis of drift", 2))
    for name, words, n_marks in kinds:
        p_value = f"{name}_p"
        preferred = float(one[f"preferred_{name}"]) if f"preferred_{name}" in one else np.nan
        may_be_chance = p_value in one and not float(one[p_value]) < _LEAST_CERTAIN_P
        if np.isfinite(preferred) and not may_be_chance:
            marks = [(preferred + 180.0 * place) % 360 for place in range(n_marks)]
            return marks, f"preferred {words} {preferred % (360 / n_marks):.0f}°"
    return [], ""


def _say_index(one: xr.Dataset, index: str, p_value: str, name: str) -> str:
    if index not in one or not np.isfinite(one[index]):
        return ""
    fact = f"{name} {float(one[index]):.2f}"
    if p_value in one and np.isfinite(one[p_value]):
        p = float(one[p_value])
        fact += f" (p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"
    return fact
