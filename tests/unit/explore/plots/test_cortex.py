"""The map of neurons: their colors and places, and which values are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fixtures.pictures import make_tuning
from sensorium_data.errors import UsageError


def test_a_map_colors_neurons_by_their_values_where_they_lie(dataset: xr.Dataset) -> None:
    values = np.array([3.0, -1.0, np.nan, 2.0, 0.5])
    figure = dataset.sensorium.plot_map(values, label="gain (a.u.)")
    above, side, bar = figure.axes
    unknown, dots = above.collections
    np.testing.assert_array_equal(unknown.get_offsets(), [[dataset.x[2], dataset.y[2]]])
    by_place = {tuple(place): value for place, value in zip(dots.get_offsets().data, dots.get_array(), strict=True)}
    assert by_place == {(float(dataset.x[i]), float(dataset.y[i])): values[i] for i in (0, 1, 3, 4)}
    assert dots.get_clim() == (-3.0, 3.0)
    np.testing.assert_array_equal(side.collections[0].get_offsets(), [[dataset.x[2], dataset.z[2]]])
    assert (above.get_xlabel(), above.get_ylabel(), bar.get_ylabel()) == ("x (µm)", "y (µm)", "gain (a.u.)")
    assert "1 of them without a value" in figure.get_suptitle()


def test_the_ends_of_a_maps_colors_can_be_given(dataset: xr.Dataset) -> None:
    angles = np.array([10.0, 170.0, np.nan, 90.0, 45.0])
    figure = dataset.sensorium.plot_map(angles, cmap="twilight", limits=(0, 180))
    dots = figure.axes[0].collections[1]
    assert dots.get_clim() == (0.0, 180.0)
    np.testing.assert_allclose(figure.axes[2].get_ylim(), (0.0, 180.0))


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.inf), (0,), "ab", 3])
def test_limits_that_are_no_range_are_refused(limits: Any, dataset: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="no limits of a color scale"):
        dataset.sensorium.plot_map(np.zeros(5), limits=limits)


def test_labelled_values_are_aligned_by_unit_id(dataset: xr.Dataset) -> None:
    units = dataset.neuron.values[[4, 1]]
    values = xr.DataArray([7.0, 9.0], dims="neuron", coords={"neuron": units}, name="peak", attrs={"units": "s"})
    figure = dataset.sensorium.plot_map(values)
    dots = figure.axes[0].collections[1]
    by_x = dict(zip(dots.get_offsets().data[:, 0], dots.get_array(), strict=True))
    assert by_x == {float(dataset.x[4]): 7.0, float(dataset.x[1]): 9.0}
    assert figure.axes[2].get_ylabel() == "peak (s)"
    with pytest.raises(UsageError, match="does not have"):
        dataset.sensorium.plot_map(values.assign_coords(neuron=[units[0], 10_000]))


@pytest.mark.parametrize("values", [[1.0], "abc", np.zeros((5, 2)), ["a"] * 5])
def test_values_that_are_not_one_for_each_neuron_are_refused(values: Any, dataset: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="not one number for each neuron"):
        dataset.sensorium.plot_map(values)


def test_a_series_is_drawn_by_its_index(dataset: xr.Dataset) -> None:
    units = dataset.neuron.values
    values = pd.Series(np.arange(len(units), dtype=float), index=units, name="my_value")
    ordered, shuffled, some = (
        dataset.sensorium.plot_map(one).axes[0].collections[1] for one in (values, values[::-1], values.iloc[2:][::-1])
    )
    np.testing.assert_array_equal(shuffled.get_array(), ordered.get_array())
    np.testing.assert_array_equal(shuffled.get_offsets(), ordered.get_offsets())
    np.testing.assert_array_equal(some.get_offsets(), np.stack([dataset.x, dataset.y], axis=1)[2:])
    assert "my value" in dataset.sensorium.plot_map(values).axes[-1].get_ylabel()


def test_values_that_name_a_neuron_twice_or_are_several_are_refused(dataset: xr.Dataset) -> None:
    unit = int(dataset.neuron[0])
    for values, said in (
        (pd.Series([1.0, 2.0], index=[unit, unit]), "more than once"),
        (xr.DataArray([1.0, 2.0], {"neuron": [unit, unit]}, "neuron"), "more than once"),
        (pd.Series(["a"], index=[unit]), "not one number"),
        (make_tuning(dataset), "a Dataset with response"),
        (dataset.sensorium.neurons, "a DataFrame with x, y, z"),
    ):
        with pytest.raises(UsageError, match=said):
            dataset.sensorium.plot_map(values)
