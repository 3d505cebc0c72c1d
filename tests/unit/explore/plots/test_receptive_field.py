"""The picture of a receptive field: its images, and what their labels say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from fixtures.pictures import make_fields


def test_a_receptive_field_is_an_image_for_each_lag_on_one_scale(dataset: xr.Dataset) -> None:
    fields = make_fields(dataset)
    figure = dataset.sensorium.plot_receptive_field(fields, int(dataset.neuron[1]))
    images = [axes.images[0] for axes in figure.axes[:3]]
    for lag, image in enumerate(images):
        np.testing.assert_array_equal(image.get_array(), fields.values[1, lag])
        assert image.get_clim() == (-9.0, 9.0)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["0 ms", "33 ms", "67 ms"]
    framed = [axes.spines["left"].get_linewidth() > 1 for axes in figure.axes[:3]]
    assert framed == [False, True, False]
    assert "1/s" in figure.axes[-1].get_ylabel()


@pytest.mark.parametrize("n_lags", [1, 4, 8, 61])
def test_the_labels_of_a_receptive_field_lie_within_the_figure(n_lags: int, dataset: xr.Dataset) -> None:
    fields = make_fields(dataset, max(n_lags, 2)).isel(lag=slice(n_lags))
    # The longest label of those that are measured.
    fields.attrs.update(long_name="ridge", units="arbitrary units per luminance (0-255)")
    figure = dataset.sensorium.plot_receptive_field(fields, int(dataset.neuron[1]))
    figure.canvas.draw()
    label = figure.axes[-1].yaxis.label
    assert label.get_text().replace("\n", " ") == f"{fields.attrs['long_name']}, {fields.attrs['units']}"
    drawn, whole = label.get_window_extent(), figure.bbox
    assert whole.x0 <= drawn.x0 < drawn.x1 <= whole.x1
    assert whole.y0 <= drawn.y0 < drawn.y1 <= whole.y1


def test_the_pixels_of_a_binned_field_are_those_of_the_video(dataset: xr.Dataset) -> None:
    fields = make_fields(dataset).coarsen(height=4, width=4).mean()
    fields = fields.assign_coords(height=np.arange(9) * 4 + 1.5, width=np.arange(16) * 4 + 1.5)
    axes = dataset.sensorium.plot_receptive_field(fields, int(dataset.neuron[1])).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.5", "61.5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1.5", "33.5"]


def test_of_many_lags_the_largest_is_among_those_shown(dataset: xr.Dataset) -> None:
    figure = dataset.sensorium.plot_receptive_field(make_fields(dataset, 61), int(dataset.neuron[1]))
    assert "33 ms" in [axes.get_title() for axes in figure.axes]
    assert len(figure.axes) <= 13
