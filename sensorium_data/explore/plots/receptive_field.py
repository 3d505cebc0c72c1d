"""A neuron's receptive field: an image for each lag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.lookup import find_position
from sensorium_data.explore.plots.parts import make_figure, name_session
from sensorium_data.picture_style import DIVERGING_MAP, VERMILLION, picture_style, wrap_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_receptive_field"]

_DIMS = ("neuron", "lag", "height", "width")
_MOST_LAGS, _PER_ROW = 12, 6
# Characters of the color bar's label in a line, for each row of images.
_LABEL_WIDTH = 20


def draw_receptive_field(dataset: xr.Dataset, fields: xr.DataArray, neuron: int) -> Figure:
    """Draw a neuron's receptive field; see :meth:`SensoriumAccessor.plot_receptive_field`."""
    if not isinstance(fields, xr.DataArray) or set(fields.dims) != set(_DIMS):
        raise UsageError(
            "no receptive fields",
            session=dataset.attrs.get("session"),
            found=f"dimensions {', '.join(map(str, fields.dims))}" if hasattr(fields, "dims") else type(fields),
            expected=f"a DataArray with the dimensions {', '.join(_DIMS)}",
        )
    field = fields.isel(neuron=find_position(fields, "neuron", neuron)).transpose("lag", "height", "width").compute()
    values = np.asarray(field.values, np.float64)
    if not values.size:
        raise UsageError("no receptive field to show", found=f"shape {values.shape}", expected="at least one lag")
    finite = np.where(np.isfinite(values), np.abs(values), -1.0)
    peak = int(np.unravel_index(finite.argmax(), finite.shape)[0])
    shown = list(range(len(values)))
    if len(shown) > _MOST_LAGS:
        evenly = np.linspace(0, len(values) - 1, _MOST_LAGS - 1).round().astype(int).tolist()
        shown = sorted({peak, *evenly})
    largest = max(float(finite.max()), float(np.finfo(np.float32).tiny))
    n_columns = min(_PER_ROW, len(shown))
    n_rows = -(-len(shown) // n_columns)
    with picture_style():
        figure = make_figure(1.25 * n_columns + 1.2, 1.0 * n_rows + 0.9)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes, lag in zip(grid.flat, shown, strict=False):
            image = axes.imshow(
                values[lag], cmap=DIVERGING_MAP, vmin=-largest, vmax=largest, interpolation="nearest", origin="upper",
                aspect="equal",
            )  # fmt: skip
            axes.set_title(_name_lag(field, lag), fontsize=8, fontweight="bold" if lag == peak else None)
            axes.set(xticks=[], yticks=[])
            axes.spines[["top", "right"]].set_visible(True)
            if lag == peak:
                for spine in axes.spines.values():
                    spine.set(color=VERMILLION, linewidth=1.8)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        corner = grid[-1, 0]
        height, width = values.shape[1:]
        corner.set_xticks([0, width - 1], _name_ends(field, "width"))
        corner.set_yticks([0, height - 1], _name_ends(field, "height"))
        corner.set_xlabel("pixels", fontsize=8)
        units = fields.attrs.get("units", "arbitrary units")
        name = str(fields.attrs.get("long_name", "weight"))
        bar = figure.colorbar(image, ax=grid, pad=0.02)
        label = name if units == "1" else f"{name}, {units}"
        # The bar of a single row is short.
        bar.set_label(wrap_label(label, _LABEL_WIDTH * n_rows), fontsize=7 if n_rows == 1 else 8)
        title = [name_session(dataset), f"neuron {neuron}", "receptive field by lag before the response"]
        figure.suptitle(", ".join(part for part in title if part), fontsize=9, wrap=True)
    return figure


def _name_ends(field: xr.DataArray, dim: str) -> list[str]:
    """Return the first and the last pixel; pixels that were averaged in bins have the place of the bin's center."""
    places = field[dim].values[[0, -1]]
    return [f"{place:g}" for place in places]


def _name_lag(field: xr.DataArray, position: int) -> str:
    if "lag_s" in field.coords:
        return f"{1000 * float(field.lag_s[position]):.0f} ms"
    if "lag" in field.coords:
        return f"{field.lag[position].item()} frames"
    return f"{position} frames"
