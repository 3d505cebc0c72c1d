"""The pictures of the quality report: where bars, points and labels go, and frames as embedded PNG.

The report's template draws these as inline SVG in the page's own colors and letters, so that they follow light and
dark mode, scale and print sharply. Lengths are in SVG's user units, which are CSS pixels at full size.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sensorium_data.counting import count_things
from sensorium_data.quality.scan import StimulusSample
from sensorium_data.quality.summary import ChannelSummary

__all__ = [
    "N_SHADES",
    "Bar",
    "CellMap",
    "DepthChart",
    "DepthRow",
    "Histogram",
    "Tick",
    "draw_active_share",
    "draw_cells",
    "draw_channel",
    "draw_depths",
    "draw_mean_responses",
    "draw_reliability",
    "embed_frames",
]

#: Shades of reliability, from 0 up in steps of 0.1; the last is for everything above.
N_SHADES = 7
_SHADE_STEP = 0.1

_WIDTH, _HEIGHT = 320.0, 132.0
_MARGIN = 6.0
_TOP, _BASE = 18.0, 110.0
_MAP_MARGIN = 8.0
_ROW_HEIGHT = 17.0
_MOST_DEPTHS = 16
_DEPTH_LABEL_WIDTH, _DEPTH_NOTE_WIDTH = 58.0, 84.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """A rectangle; ``shade`` is a shade of reliability, or None for the one color of other charts."""

    x: float
    y: float
    width: float
    height: float
    shade: int | None = None


@dataclass(frozen=True)
class Tick:
    """A label on the horizontal axis, and where."""

    x: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """A histogram with its median marked.

    Attributes
    ----------
    width, height, base : float
        Of the picture, and of the line that the bars stand on.
    bars : tuple of Bar
        From left to right.
    ticks : tuple of Tick
        Labels under the line.
    median : Tick or None
        Where the median is, and its value.
    description : str
        The picture in words, for those who do not see it.
    """

    width: float
    height: float
    base: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    median: Tick | None
    description: str


@dataclass(frozen=True)
class CellMap:
    """Cells seen from above, colored by reliability.

    Attributes
    ----------
    width, height : float
        Of the picture.
    layers : tuple of (int or None, str)
        A shade and the SVG path of its points, the least reliable first; shade None where it is not known.
    point_size : float
        Diameter of a point.
    scale_width, scale_label : float, str
        Length of the scale bar and what it means.
    description : str
        In words.
    """

    width: float
    height: float
    layers: tuple[tuple[int | None, str], ...]
    point_size: float
    scale_width: float
    scale_label: str
    description: str


@dataclass(frozen=True)
class DepthRow:
    """Neurons of one depth: where their bar lies, how many they are, and what their reliability is."""

    label: str
    y: float
    bar: Bar
    n_neurons: int
    reliability: float


@dataclass(frozen=True)
class DepthChart:
    """How many neurons lie how deep; the first row is nearest to the surface."""

    width: float
    height: float
    rows: tuple[DepthRow, ...]
    description: str


def draw_reliability(reliability: Floats) -> Histogram | None:
    """Draw the distribution of the oracle reliability on an axis that all sessions share; None without any."""
    known = reliability[np.isfinite(reliability)]
    low, high = -0.2, 1.0
    edges = np.linspace(low, high, 49)
    counts, _ = np.histogram(known.clip(low, high), edges)
    ticks = [(value, f"{value:g}") for value in (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    shades = [_shade(float(center)) for center in (edges[1:] + edges[:-1]) / 2]
    return _draw_histogram(known, counts, edges, ticks, "oracle reliability of neurons", shades=shades)


def draw_mean_responses(mean: Floats) -> Histogram | None:
    """Draw the distribution of the neurons' mean responses on a logarithmic axis; None without any above zero."""
    known = mean[np.isfinite(mean) & (mean > 0)]
    if len(known) == 0:
        return None
    low, high = math.floor(np.log10(known.min())), math.ceil(np.log10(known.max()))
    # From a dead neuron to a live one lie many decades; the picture shows the live ones.
    low, high = max(low, high - 5), max(high, low + 1)
    shown = known[known >= 10.0**low]
    counts, edges = np.histogram(np.log10(shown), np.linspace(low, high, 49))
    ticks = [(float(decade), f"{10.0**decade:g}") for decade in range(low, high + 1)]
    return _draw_histogram(np.log10(shown), counts, edges, ticks, "mean response of neurons", is_log=True)


def draw_active_share(share: Floats) -> Histogram | None:
    """Draw the distribution of the neurons' shares of responses above the floor; None without any."""
    known = share[np.isfinite(share)] * 100
    if len(known) == 0:
        return None
    high = min(100.0, max(1.0, float(known.max()) * 1.02))
    counts, edges = np.histogram(known, np.linspace(0, high, 49))
    ticks = [(value, f"{value:g} %") for value in _choose_ticks(0, high)]
    what = "percentage of responses above the numerical floor"
    return _draw_histogram(known, counts, edges, ticks, what, form="{:.3g} %")


def draw_channel(channel: ChannelSummary) -> Histogram | None:
    """Draw the distribution of a channel's values, outliers left out; None without any."""
    if not channel.histogram_counts or sum(channel.histogram_counts) == 0:
        return None
    counts, edges = np.array(channel.histogram_counts), np.array(channel.histogram_edges)
    ticks = [(value, f"{value:g}") for value in _choose_ticks(float(edges[0]), float(edges[-1]))]
    name = channel.channel.replace("_", " ")
    return _draw_histogram(np.array([channel.median]), counts, edges, ticks, f"values of {name}")


def draw_cells(neurons: pd.DataFrame) -> CellMap | None:
    """Draw the neurons' positions seen from above; None without any."""
    placed = neurons[np.isfinite(neurons.x) & np.isfinite(neurons.y)]
    if placed.empty:
        return None
    x, y = placed.x.to_numpy(np.float64), placed.y.to_numpy(np.float64)
    span_x, span_y = max(float(np.ptp(x)), 1.0), max(float(np.ptp(y)), 1.0)
    scale = min((_WIDTH - 2 * _MAP_MARGIN) / span_x, (_WIDTH - 2 * _MAP_MARGIN) / span_y)
    across = _MAP_MARGIN + (x - x.min()) * scale
    # y grows upward in the animal's coordinates, downward on a page.
    down = _MAP_MARGIN + (y.max() - y) * scale
    shades = np.array([-1 if math.isnan(r) else _shade(r) for r in placed.reliability.tolist()])
    layers: list[tuple[int | None, str]] = []
    for shade in (-1, *range(N_SHADES)):
        chosen = np.flatnonzero(shades == shade)
        if len(chosen):
            # A move and a line of no length: a round cap makes it a point.
            path = "".join(f"M{across[i]:.1f} {down[i]:.1f}h0" for i in chosen)
            layers.append((None if shade < 0 else shade, path))
    scale_length = _round_down(span_x / 4)
    return CellMap(
        width=_WIDTH,
        height=2 * _MAP_MARGIN + span_y * scale + 18,
        layers=tuple(layers),
        point_size=float(np.clip(110 / math.sqrt(len(placed)), 1.8, 5.5)),
        scale_width=scale_length * scale,
        scale_label=f"{scale_length:g} µm",
        description=f"Positions of {count_things(len(placed), 'neuron')} seen from above, "
        f"{span_x:,.0f} by {span_y:,.0f} micrometers, colored by oracle reliability.",
    )


def draw_depths(neurons: pd.DataFrame) -> DepthChart | None:
    """Draw how many neurons lie at which depth, with their median reliability; None without any."""
    placed = neurons[np.isfinite(neurons.z)]
    if placed.empty:
        return None
    depths = placed.z.to_numpy(np.float64)
    step = 0.0
    if len(np.unique(depths)) > _MOST_DEPTHS:
        step = _round_up(float(np.ptp(depths)) / _MOST_DEPTHS)
        depths = np.floor(depths / step) * step
    groups = list(placed.groupby(depths))
    most = max(len(group) for _, group in groups)
    longest = _WIDTH - _DEPTH_LABEL_WIDTH - _DEPTH_NOTE_WIDTH
    rows = []
    for position, (depth, group) in enumerate(groups):
        y = position * _ROW_HEIGHT + 3
        known = group.reliability[np.isfinite(group.reliability)]
        median = float(known.median()) if len(known) else math.nan
        start = float(str(depth))
        rows.append(
            DepthRow(
                label=f"{start:g} µm" if not step else f"{start:g}-{start + step:g}",
                y=y + 9.5,
                bar=Bar(
                    _DEPTH_LABEL_WIDTH,
                    y,
                    max(1.0, longest * len(group) / most),
                    _ROW_HEIGHT - 5,
                    None if math.isnan(median) else _shade(median),
                ),
                n_neurons=len(group),
                reliability=median,
            )
        )
    low, high = rows[0].label, rows[-1].label
    return DepthChart(
        width=_WIDTH,
        height=len(rows) * _ROW_HEIGHT + 4,
        rows=tuple(rows),
        description=f"Number of neurons by depth, from {low} to {high}, with their median oracle reliability.",
    )


def embed_frames(sample: StimulusSample) -> tuple[str, ...]:
    """Return a sample's frames as data URLs of gray PNG pictures."""
    from matplotlib.image import imsave

    urls = []
    for pixels in sample.pixels:
        stream = io.BytesIO()
        # Without the program's version, so that the same store gives the same page.
        metadata = {"Software": None}
        imsave(stream, pixels, cmap="gray", vmin=0, vmax=255, format="png", metadata=metadata)  # type: ignore[arg-type]
        urls.append("data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii"))
    return tuple(urls)


def _draw_histogram(
    values: Floats,
    counts: npt.NDArray[np.int64],
    edges: Floats,
    ticks: Sequence[tuple[float, str]],
    what: str,
    *,
    shades: Sequence[int] | None = None,
    is_log: bool = False,
    form: str = "{:.3g}",
) -> Histogram | None:
    if len(values) == 0:
        return None
    low, high = float(edges[0]), float(edges[-1])
    span = high - low or 1.0

    def place(position: float) -> float:
        return _MARGIN + (position - low) / span * (_WIDTH - 2 * _MARGIN)

    tallest = int(counts.max()) or 1
    bars = []
    for index, count in enumerate(counts.tolist()):
        if count:
            left, right = place(float(edges[index])), place(float(edges[index + 1]))
            height = max(1.0, (_BASE - _TOP) * count / tallest)
            bars.append(
                Bar(left + 0.4, _BASE - height, max(0.8, right - left - 0.8), height, shades[index] if shades else None)
            )
    median = float(np.median(values))
    shown = form.format(10.0**median if is_log else median)
    described = f"Histogram of the {what}: {count_things(int(counts.sum()), 'value')}, median {shown}"
    return Histogram(
        width=_WIDTH,
        height=_HEIGHT,
        base=_BASE,
        bars=tuple(bars),
        ticks=tuple(Tick(place(position), label) for position, label in ticks),
        median=Tick(place(min(max(median, low), high)), shown),
        description=f"{described}, axis from {ticks[0][1]} to {ticks[-1][1]}." if ticks else f"{described}.",
    )


def _shade(reliability: float) -> int:
    return int(np.clip(math.floor(reliability / _SHADE_STEP), 0, N_SHADES - 1))


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return four to eight round numbers from low to high."""
    step = _round_down((high - low) / 4) if high > low else 1.0
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _round_down(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is no larger."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    """Return the smallest of 1, 2, 5 and 10 times a power of ten that is no smaller."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))
