"""Values of neurons where they lie: from above, and in depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from sensorium_data.counting import count_things, name_some
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.layout import arrange_session, find_duplicates
from sensorium_data.explore.plots.parts import make_figure, name_session
from sensorium_data.picture_style import (
    DIVERGING_MAP,
    GRAY,
    LIGHT_GRAY,
    SEQUENTIAL_MAP,
    picture_style,
    say_instead,
    wrap_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_map"]

# With more neurons the dots become smaller and are drawn as pixels in vector graphics.
_FEW_NEURONS, _MANY_NEURONS = 200, 1000
_MICROMETER = "µm"


def draw_map(
    dataset: xr.Dataset,
    values: xr.DataArray | pd.Series | Sequence[float] | np.ndarray,
    label: str | None,
    cmap: str | None,
    limits: tuple[float | None, float | None] | None,
) -> Figure:
    """Draw values at the neurons' positions; see :meth:`SensoriumAccessor.plot_map`."""
    missing = [name for name in ("x", "y", "z") if name not in dataset.coords]
    if missing:
        raise UsageError(
            "the neurons' positions are not known",
            session=dataset.attrs.get("session"),
            found=f"no coordinate {', '.join(missing)}",
            remedy="choose a session whose `x`, `y` and `z` are stored",
        )
    if cmap is not None:
        _require_colormap(cmap)
    dataset = arrange_session(dataset, "neuron", "x", "y", "z")
    aligned = _align(dataset, values)
    x, y, z = (dataset[name].values for name in ("x", "y", "z"))
    is_known = np.isfinite(aligned)
    known = aligned[is_known]
    has_both_signs = bool(len(known)) and known.min() < 0 < known.max()
    largest = float(np.abs(known).max(initial=0.0))
    centered = (-largest, largest) if has_both_signs else (None, None)
    limits = centered if limits is None else _require_limits(limits)
    with picture_style():
        from matplotlib.ticker import MaxNLocator

        figure = make_figure(7, 3.4)
        above, side = figure.subplots(1, 2, width_ratios=(3, 2))
        size = 30 if len(x) <= _FEW_NEURONS else 14 if len(x) <= _MANY_NEURONS else 3
        # Light colors would not be seen on white.
        edge = 0.4 if len(x) <= _MANY_NEURONS else 0.0
        # The largest values are drawn last, so that others do not hide them.
        order = np.flatnonzero(is_known)[np.argsort(np.abs(known), kind="stable")]
        for axes, vertical in ((above, y), (side, z)):
            axes.set_xlabel(f"x ({_MICROMETER})")
            axes.xaxis.set_major_locator(MaxNLocator(3))
            if len(x) == 0:
                say_instead(axes, "no neuron")
                continue
            unknown = axes.scatter(
                x[~is_known], vertical[~is_known], s=size, marker="x", linewidths=0.8, color=LIGHT_GRAY
            )
            unknown.set_rasterized(len(x) > _MANY_NEURONS)
            dots = axes.scatter(
                x[order], vertical[order], c=aligned[order], s=size, linewidths=edge, edgecolors=GRAY,
                vmin=limits[0], vmax=limits[1], rasterized=len(x) > _MANY_NEURONS,
                cmap=cmap or (DIVERGING_MAP if has_both_signs else SEQUENTIAL_MAP),
            )  # fmt: skip
        above.set_ylabel(f"y ({_MICROMETER})")
        above.set_aspect("equal", adjustable="datalim")
        side.set_ylabel(f"depth z ({_MICROMETER})")
        side.invert_yaxis()
        if len(known):
            figure.colorbar(dots, ax=[above, side], label=wrap_label(_name_values(values, label)), pad=0.02)
        title = [name_session(dataset), count_things(len(x), "neuron")]
        n_unknown = int((~is_known).sum())
        if n_unknown:
            title.append(f"{n_unknown:,} of them without a value (crosses)")
        figure.suptitle(", ".join(part for part in title if part))
    return figure


def _require_colormap(name: str) -> None:
    import matplotlib

    if name not in matplotlib.colormaps:
        raise UnknownNameError.of("colormap", str(name), list(matplotlib.colormaps), otherwise="see matplotlib's list")


def _require_limits(limits: Any) -> tuple[float, float]:
    try:
        least, greatest = (float(end) for end in limits)
        is_range = bool(np.isfinite([least, greatest]).all()) and least < greatest
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        raise UsageError(
            "no limits of a color scale", found=limits, expected="the least and the greatest value, as (0, 180)"
        )
    return least, greatest


def _align(dataset: xr.Dataset, values: Any) -> np.ndarray:
    """Return a value for each neuron of the dataset; NaN for those that labelled values lack."""
    n_neurons = dataset.sizes["neuron"]
    session = dataset.attrs.get("session")
    if isinstance(values, xr.Dataset | pd.DataFrame):
        names = [str(name) for name in (values.data_vars if isinstance(values, xr.Dataset) else values.columns)]
        raise UsageError(
            "several values for each neuron",
            session=session,
            found=f"a {type(values).__name__} with {name_some(names, most=8) or 'nothing'}",
            expected="one variable or column of it",
            remedy="choose one by its name in brackets",
        )
    if isinstance(values, pd.Series):
        if not pd.api.types.is_numeric_dtype(values.dtype):
            raise UsageError(
                "not one number for each neuron", session=session, found=f"{values.dtype}", expected="numbers"
            )
        values = xr.DataArray(values.to_numpy(np.float64, na_value=np.nan), {"neuron": values.index.values}, "neuron")
    if isinstance(values, xr.DataArray) and "neuron" in values.coords and values.dims == ("neuron",):
        for labels, owner in ((values.neuron.values, "values"), (dataset.neuron.values, "session")):
            if repeated := find_duplicates(labels):
                raise UsageError(
                    f"unit ids that occur more than once in the {owner}",
                    session=session,
                    found=name_some(repeated, most=5),
                    expected="each once",
                )
        known = np.isin(values.neuron.values, dataset.neuron.values)
        if not known.all():
            raise UsageError(
                "values of neurons that the session does not have",
                session=session,
                found=", ".join(map(str, values.neuron.values[~known][:5])),
                expected="unit ids of `dataset.neuron`",
            )
        return np.asarray(values.reindex(neuron=dataset.neuron.values).values, np.float64)
    try:
        array = np.asarray(values)
    except ValueError:
        # Rows of different lengths.
        array = np.empty(0, object)
    if array.shape != (n_neurons,) or array.dtype.kind not in "fiub":
        raise UsageError(
            "not one number for each neuron",
            session=session,
            found=f"shape {array.shape}, {array.dtype}",
            expected=f"shape ({n_neurons},), or a DataArray with the dimension and coordinate neuron",
        )
    return array.astype(np.float64)


def _name_values(values: object, label: str | None) -> str:
    if label is not None:
        return label
    if isinstance(values, pd.Series):
        return "value" if values.name is None else str(values.name).replace("_", " ")
    if not isinstance(values, xr.DataArray):
        return "value"
    name = str(values.attrs.get("long_name") or values.name or "value").replace("_", " ")
    units = values.attrs.get("units")
    return f"{name} ({units})" if units and units != "1" else name
