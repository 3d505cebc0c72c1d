"""What all pictures share: what is missing, what is refused, and what titles say."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

from fixtures.explored import BROKEN
from fixtures.pictures import make_fields, make_tuning, pyplot, texts
from sensorium_data.errors import UsageError

HOSTILE = "$\\frac{$ <script>\n"


def test_a_simulated_session_says_so_in_every_title(dataset: xr.Dataset) -> None:
    simulated = dataset.assign_attrs(simulated=1).sensorium
    neuron = int(dataset.neuron[0])
    drawn = [
        simulated.plot_trial(1), simulated.plot_frames(1), simulated.plot_raster(1), simulated.plot_neuron(neuron),
        simulated.plot_map(np.arange(dataset.sizes["neuron"])), simulated.plot_behavior(), simulated.plot_behavior(1),
        simulated.plot_session(), simulated.plot_tuning(make_tuning(dataset), neuron),
        simulated.plot_receptive_field(make_fields(dataset), neuron),
    ]  # fmt: skip
    for one in drawn:
        title = one.get_title() if hasattr(one, "get_title") else one.get_suptitle()
        assert "simulated session F" in title
    assert "simulated" not in dataset.sensorium.plot_behavior(1).get_suptitle()


def test_withheld_responses_are_said_so(dataset: xr.Dataset) -> None:
    unit = int(dataset.neuron[0])
    movie = str(dataset.movie.sel(trial=4).item())
    for axes in (
        dataset.sensorium.plot_trial(4).axes[8],
        dataset.sensorium.plot_raster(4),
        dataset.sensorium.plot_repeats(movie, unit),
    ):
        assert texts(axes) == ["responses withheld"]
        assert not axes.lines
        assert not axes.images


def test_what_was_not_recorded_is_said_so(dataset: xr.Dataset) -> None:
    bare = dataset.drop_vars(["behavior", "pupil_center"]).sensorium
    for rows in (bare.plot_trial(1).axes[9:], bare.plot_behavior(1).axes, bare.plot_behavior().axes):
        assert [texts(axes) for axes in rows] == [["not recorded"]] * 3
    assert [texts(axes) for axes in bare.plot_session().axes[3:]] == [["not recorded"]] * 2


def test_responses_that_are_all_missing_are_said_so(dataset: xr.Dataset) -> None:
    lost = dataset.assign(responses=dataset.responses * np.nan).sensorium
    for axes in (lost.plot_trial(1).axes[8], lost.plot_raster(1), lost.plot_neuron(int(dataset.neuron[0]))):
        assert texts(axes) == ["no response is known"]


def test_a_selection_without_neurons_or_with_one_is_drawn(dataset: xr.Dataset) -> None:
    nobody, one = (dataset.isel(neuron=slice(0, n)).sensorium for n in (0, 1))
    assert texts(nobody.plot_trial(1).axes[8]) == ["no neuron"]
    assert texts(nobody.plot_raster(1)) == ["no neuron"]
    assert texts(nobody.plot_session().axes[2]) == ["no neuron"]
    nobody.plot_map([]).canvas.draw()
    assert len(one.plot_trial(1).axes[8].lines) == 1
    assert one.plot_raster(1).images[0].get_array().shape == (1, 20)
    one.plot_map([1.0]).canvas.draw()


@pytest.mark.parametrize(
    "call",
    [
        lambda accessor: accessor.plot_raster(99),
        lambda accessor: accessor.plot_raster(BROKEN),
        lambda accessor: accessor.plot_raster(1, order=[-1]),
        lambda accessor: accessor.plot_raster(1, order=[int(accessor._dataset.neuron[0])] * 2),
        lambda accessor: accessor.plot_trial(1, neurons=[-1]),
        lambda accessor: accessor.plot_neuron(-1),
        lambda accessor: accessor.plot_neuron(0, "nothing"),
        lambda accessor: accessor.plot_behavior(BROKEN),
        lambda accessor: accessor.animate(BROKEN),
        lambda accessor: accessor.animate(99),
        lambda accessor: accessor.plot_receptive_field(xr.DataArray([1.0]), 0),
        lambda accessor: accessor.plot_receptive_field(make_fields(accessor._dataset), -1),
        lambda accessor: accessor.plot_tuning(xr.Dataset(), 0),
        lambda accessor: accessor.plot_raster(1, order=["a"]),
        lambda accessor: accessor.plot_neuron(int(accessor._dataset.neuron[0]), 5),
        lambda accessor: accessor.plot_neuron(int(accessor._dataset.neuron[0]), predictions="predictions"),
        lambda accessor: accessor.plot_map(np.arange(5), cmap="viridian"),
        lambda accessor: accessor.plot_frames(1, 2.5),
        lambda accessor: accessor._dataset.drop_vars("videos").sensorium.plot_trial(1),
        lambda accessor: accessor._dataset.drop_vars("responses").sensorium.plot_raster(1),
        lambda accessor: xr.Dataset().sensorium.plot_session(),
        lambda accessor: accessor.plot_tuning(make_tuning(accessor._dataset), -1),
    ],
)
def test_what_cannot_be_drawn_is_a_usage_error(call: Any, dataset: xr.Dataset) -> None:
    with pytest.raises(UsageError):
        call(dataset.sensorium)


def test_names_from_outside_are_text_and_no_formulas(dataset: xr.Dataset) -> None:
    hostile = dataset.assign_attrs(alias=HOSTILE).assign_coords(
        movie=("trial", [HOSTILE] * 6), tier=("trial", [HOSTILE] * 6), stimulus=("trial", [HOSTILE] * 6)
    )
    for figure in (hostile.sensorium.plot_trial(1), hostile.sensorium.plot_session(), hostile.sensorium.plot_frames(1)):
        figure.canvas.draw()
        assert "\n" not in figure.get_suptitle()


def test_images_stand_upright_whatever_matplotlib_is_set_to(dataset: xr.Dataset) -> None:
    fields = xr.DataArray(
        np.ones((1, 2, 3, 4)), {"neuron": [int(dataset.neuron[0])], "lag": [0, 1]}, ("neuron", "lag", "height", "width")
    )
    with matplotlib.rc_context({"image.origin": "lower", "image.aspect": "auto"}):
        frames = dataset.sensorium.plot_frames(1, 2).axes[0]
        field = dataset.sensorium.plot_receptive_field(fields, int(dataset.neuron[0])).axes[0]
        raster = dataset.sensorium.plot_raster(1)
    for axes in (frames, field, raster):
        assert axes.images[0].origin == "upper"
        assert axes.yaxis_inverted()
    assert frames.get_aspect() == field.get_aspect() == 1.0


def test_what_is_no_axes_is_refused(dataset: xr.Dataset) -> None:
    figure, several = pyplot().subplots(2, 2)
    for given, said in ((several, "array of 4 axes"), (figure, "Figure"), ("axes", "str")):
        with pytest.raises(UsageError, match=f"no axes of matplotlib: found .*{said}"):
            dataset.sensorium.plot_raster(1, ax=given)


def test_titles_are_short_where_axes_have_neighbors(dataset: xr.Dataset) -> None:
    _, (left, right) = pyplot().subplots(1, 2)
    dataset.sensorium.plot_raster(1, ax=left)
    dataset.sensorium.plot_tuning(make_tuning(dataset), int(dataset.neuron[1]), ax=right)
    assert left.get_title() == "session F, trial 1"
    assert "similar" not in left.get_ylabel()
    assert right.get_title() == f"session F, neuron {int(dataset.neuron[1])}"
