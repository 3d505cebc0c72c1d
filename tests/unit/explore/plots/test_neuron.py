"""The pictures of a neuron: its repeats, their average and its prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from fixtures.pictures import response
from sensorium_data.errors import UsageError
from sensorium_data.testing import Recording


def test_repeats_are_drawn_with_their_average(dataset: xr.Dataset, recording: Recording) -> None:
    movie = str(dataset.movie.sel(trial=1).item())
    axes = dataset.sensorium.plot_repeats(movie, neuron=int(recording.unit_ids[0]))
    first, second = response(recording, 1)[0], response(recording, 2)[0]
    assert len(axes.lines) == 3
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), first)
    expected = np.where(np.arange(20) < 19, (first + second) / 2, first)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), expected, rtol=1e-5)
    assert "2 repeats" in axes.get_title()


def test_a_prediction_is_drawn_over_the_average_with_its_correlation(dataset: xr.Dataset, recording: Recording) -> None:
    import matplotlib.pyplot as plt

    _, given = plt.subplots()
    unit = int(recording.unit_ids[1])
    predicted = np.random.default_rng(1).uniform(0, 1, (2, dataset.sizes["neuron"], 302)).astype(np.float32)
    predicted[:, :, 15:] = np.nan
    predictions = xr.Dataset(
        {"predictions": (("trial", "neuron", "time"), predicted)},
        coords={"trial": [2, 3], "neuron": dataset.neuron.values},
        attrs={"session": dataset.attrs["session"]},
    )
    axes = dataset.sensorium.plot_neuron(unit, predictions=predictions, ax=given)
    assert axes is given
    # By default the movie with the most repeats; of them trial 2 alone is predicted.
    drawn = axes.lines[3].get_ydata()
    np.testing.assert_allclose(drawn[:15], predicted[0, 1, :15])
    assert np.isnan(drawn[15:]).all()
    average = (response(recording, 1)[1, :15] + response(recording, 2)[1, :15]) / 2
    correlation = np.corrcoef(average, predicted[0, 1, :15])[0, 1]
    assert f"correlation {correlation:z.2f}" in axes.get_title()
    standardized = dataset.sensorium.plot_neuron(
        unit, predictions=predictions.assign_attrs(response_units="standardized")
    )
    assert len(standardized.lines) == 3
    right = standardized.figure.axes[1]
    np.testing.assert_allclose(right.lines[0].get_ydata()[:15], predicted[0, 1, :15])
    assert "standard deviations" in right.get_ylabel()
    withheld = dataset.sensorium.plot_neuron(
        unit, str(dataset.movie.sel(trial=4).item()), predictions.assign_coords(trial=[4, 5])
    )
    assert len(withheld.lines) == 1
    assert "responses withheld" in withheld.get_title()


def test_by_default_a_movie_is_drawn_that_is_predicted(dataset: xr.Dataset) -> None:
    # Trial 0 is shown once, and another movie has more repeats.
    predictions = xr.Dataset(
        {"predictions": (("trial", "neuron", "time"), np.ones((1, 5, 302)))},
        coords={"trial": [0], "neuron": dataset.neuron.values},
        attrs={"session": dataset.attrs["session"]},
    )
    movies = dataset.movie_group if "movie_group" in dataset.coords else dataset.movie
    axes = dataset.sensorium.plot_neuron(int(dataset.neuron[0]), predictions=predictions)
    assert f"movie {movies.sel(trial=0).item()}" in axes.get_title()
    assert "1 repeat" in axes.get_title()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"session": "dynamic1-2-3-Video-x"}, "another session"),
        ({"trial": [1000, 1001]}, "no repeat of this movie is predicted"),
        ({"neuron": [1000, 1001, 1002, 1003, 1004]}, "no such neuron"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change: dict[str, Any], said: str, dataset: xr.Dataset) -> None:
    predictions = xr.Dataset(
        {"predictions": (("trial", "neuron", "time"), np.zeros((2, 5, 302)))},
        coords={"trial": change.get("trial", [1, 2]), "neuron": change.get("neuron", dataset.neuron.values)},
        attrs={"session": change.get("session", dataset.attrs["session"])},
    )
    with pytest.raises(UsageError, match=said):
        dataset.sensorium.plot_neuron(int(dataset.neuron[0]), predictions=predictions)
