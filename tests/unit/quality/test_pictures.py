from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from sensorium_data.quality.pictures import (
    draw_active_share,
    draw_cells,
    draw_depths,
    draw_mean_responses,
    draw_reliability,
)


def make_neurons(n_neurons: int = 300, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": rng.uniform(-1498, -143, n_neurons),
            "y": rng.uniform(-728, 236, n_neurons),
            "z": rng.choice(np.arange(200.0, 426.0, 25.0), n_neurons),
            "reliability": rng.normal(0.3, 0.2, n_neurons),
        }
    )
    return frame.assign(**columns)


def test_bars_are_as_high_as_the_counts_and_the_median_stands_where_it_is() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.15, 5000)
    chart = draw_reliability(values)
    assert chart is not None
    counts, _ = np.histogram(values.clip(-0.2, 1), np.linspace(-0.2, 1, 49))
    heights = np.array([bar.height for bar in chart.bars])
    assert len(heights) == (counts > 0).sum()
    drawn, expected = heights / heights.max(), counts[counts > 0] / counts.max()
    np.testing.assert_allclose(drawn[expected > 0.02], expected[expected > 0.02])
    places = {tick.label: tick.x for tick in chart.ticks}
    share = (np.median(values) - 0) / 0.2
    assert chart.median is not None
    assert chart.median.x == pytest.approx(places["0"] + share * (places["0.2"] - places["0"]))
    assert chart.median.label == f"{np.median(values):.3g}"
    assert "5,000 values" in chart.description
    shades = [bar.shade for bar in chart.bars if bar.shade is not None]
    assert shades == sorted(shades)
    assert set(shades) == set(range(7))


def test_reliability_of_all_sessions_has_one_axis() -> None:
    low, high = draw_reliability(np.array([0.01, 0.02])), draw_reliability(np.array([0.9, 0.95]))
    assert low is not None
    assert high is not None
    assert low.ticks == high.ticks


def test_mean_responses_are_drawn_in_decades() -> None:
    chart = draw_mean_responses(np.array([0.2, 1.0, 5.0, 48.0, 0.0, np.nan]))
    assert chart is not None
    assert [tick.label for tick in chart.ticks] == ["0.1", "1", "10", "100"]
    steps = np.diff([tick.x for tick in chart.ticks])
    np.testing.assert_allclose(steps, steps[0])
    assert chart.median is not None
    assert float(chart.median.label) == pytest.approx(np.sqrt(5.0), rel=0.01)


def test_a_dead_neuron_does_not_stretch_the_axis() -> None:
    chart = draw_mean_responses(np.array([1e-9, 1.0, 5.0, 48.0]))
    assert chart is not None
    assert chart.ticks[0].label == "0.001"


def test_nothing_to_draw_is_no_picture() -> None:
    nothing = np.full(3, np.nan)
    assert draw_reliability(nothing) is None
    assert draw_mean_responses(nothing) is None
    assert draw_active_share(nothing) is None
    nowhere = make_neurons(3, x=nothing, z=nothing)
    assert draw_cells(nowhere) is None
    assert draw_depths(nowhere) is None


def test_every_cell_is_a_point_in_its_place() -> None:
    neurons = make_neurons()
    chart = draw_cells(neurons)
    assert chart is not None
    points = np.array(
        [(float(x), float(y)) for _, path in chart.layers for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", path)]
    )
    assert len(points) == len(neurons)
    scale = chart.scale_width / float(chart.scale_label.split()[0])
    # Seen on the page, y points up: the farthest right and the topmost cell are where they should be.
    across = points[:, 0].min() + (neurons.x - neurons.x.min()) * scale
    down = points[:, 1].min() + (neurons.y.max() - neurons.y) * scale
    expected = sorted(zip(across.round(1), down.round(1), strict=True))
    np.testing.assert_allclose(sorted(map(tuple, points)), expected, atol=0.21)
    shades = [shade for shade, _ in chart.layers]
    assert shades == sorted(shades)


def test_cells_of_unknown_reliability_are_drawn_first() -> None:
    reliability = np.where(np.arange(300) < 10, np.nan, 0.95)
    chart = draw_cells(make_neurons(reliability=reliability))
    assert chart is not None
    assert [(shade, path.count("M")) for shade, path in chart.layers] == [(None, 10), (6, 290)]


def test_depths_are_counted_from_the_surface_down() -> None:
    neurons = make_neurons()
    chart = draw_depths(neurons)
    assert chart is not None
    counts = neurons.z.value_counts().sort_index()
    assert [row.label for row in chart.rows] == [f"{depth:g} µm" for depth in counts.index]
    assert [row.n_neurons for row in chart.rows] == counts.tolist()
    medians = neurons.groupby("z").reliability.median()
    np.testing.assert_allclose([row.reliability for row in chart.rows], medians)
    widths = np.array([row.bar.width for row in chart.rows])
    np.testing.assert_allclose(widths / widths.max(), counts / counts.max())


def test_depths_of_another_laboratory_are_grouped() -> None:
    neurons = make_neurons(z=np.linspace(100.3, 611.7, 300))
    chart = draw_depths(neurons)
    assert chart is not None
    assert 5 <= len(chart.rows) <= 17
    assert sum(row.n_neurons for row in chart.rows) == 300
