"""The raster of a trial: what its image holds, and the order of its rows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fixtures.pictures import response
from sensorium_data.explore.plots.raster import order_by_correlation
from sensorium_data.testing import Recording


def test_a_raster_is_an_image_in_the_order_given(dataset: xr.Dataset, recording: Recording) -> None:
    units = recording.unit_ids[[2, 0]]
    axes = dataset.sensorium.plot_raster(1, order=units, standardize=False)
    np.testing.assert_array_equal(axes.images[0].get_array(), response(recording, 1)[[2, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(unit) for unit in units]
    standardized = dataset.sensorium.plot_raster(1, order=units).images[0].get_array()
    wanted = response(recording, 1)[[2, 0]]
    np.testing.assert_allclose(standardized, wanted / wanted.std(axis=1, keepdims=True), rtol=1e-4)
    by_default = dataset.sensorium.plot_raster(1, standardize=False)
    order = [int(label.get_text()) for label in by_default.get_yticklabels()]
    rows = [recording.unit_ids.tolist().index(unit) for unit in order]
    assert rows != sorted(rows)
    np.testing.assert_array_equal(by_default.images[0].get_array(), response(recording, 1)[rows])
    colorbar = axes.figure.axes[1]
    assert "arbitrary units" in colorbar.get_ylabel()


def test_neurons_that_respond_alike_stand_next_to_each_other() -> None:
    random = np.random.default_rng(0)
    sources = random.standard_normal((3, 200))
    group = random.permutation(np.repeat([0, 1, 2], 10))
    responses = sources[group] * random.uniform(1, 100, (30, 1)) + 0.1 * random.standard_normal((30, 200))
    ordered = group[order_by_correlation(responses)]
    # On a circle of angles each group is in one piece.
    assert np.count_nonzero(ordered != np.roll(ordered, 1)) == 3
    assert sorted(order_by_correlation(np.zeros((5, 7)))) == list(range(5))
