"""The tuning curve, and which preferences it marks."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from fixtures.pictures import make_tuning


@pytest.mark.parametrize("is_polar", [False, True])
def test_a_tuning_curve_closes_and_marks_the_preferred_direction(is_polar: bool, dataset: xr.Dataset) -> None:
    import matplotlib.pyplot as plt

    _, given = plt.subplots(subplot_kw={"projection": "polar"} if is_polar else {})
    axes = dataset.sensorium.plot_tuning(make_tuning(dataset), int(dataset.neuron[1]), ax=given)
    unit = np.deg2rad(1) if is_polar else 1
    curve, preferred = axes.lines
    np.testing.assert_allclose(curve.get_xdata(), np.array([0, 90, 180, 270, 360]) * unit)
    np.testing.assert_array_equal(curve.get_ydata(), [5, 4, 6, 7, 5])
    np.testing.assert_allclose(preferred.get_xdata(), 95 * unit)
    if is_polar:
        # On the screen 90 degrees is downward, and 0 to the right.
        down, right, center = axes.transData.transform([(np.pi / 2, 5), (0, 5), (0, 0)])
        assert down[1] < center[1]
        assert right[0] > center[0]
    assert "orientation selectivity 0.42 (p < 0.001)" in axes.get_title()
    assert "direction selectivity 0.20 (p = 0.040)" in axes.get_title()


@pytest.mark.parametrize(
    ("direction_p", "orientation_p", "marks", "said"),
    [
        (0.01, 0.5, [95.0], "preferred direction 95°"),
        (0.2, 0.01, [20.0, 200.0], "preferred axis of drift 20°"),
        (0.2, 0.3, [], ""),
    ],
)
def test_a_preference_that_may_be_chance_is_not_marked(
    direction_p: float, orientation_p: float, marks: list[float], said: str, dataset: xr.Dataset
) -> None:
    columns = {"direction_p": direction_p, "orientation_p": orientation_p, "preferred_orientation": 20.0}
    n_neurons = dataset.sizes["neuron"]
    tuning = make_tuning(dataset).assign({name: ("neuron", np.full(n_neurons, x)) for name, x in columns.items()})
    axes = dataset.sensorium.plot_tuning(tuning, int(dataset.neuron[0]))
    assert [line.get_xdata()[0] for line in axes.lines[1:]] == marks
    assert said in axes.get_title()
    assert ("preferred" in axes.get_title()) == bool(said)
