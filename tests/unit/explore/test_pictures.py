"""What the pictures of a session draw: the values in their lines and images, and what their labels say."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fixtures.explored import BROKEN
from sensorium_data.errors import UsageError
from sensorium_data.explore.plots.raster import order_by_correlation
from sensorium_data.testing import Recording

HOSTILE = "$\\frac{$ <script>\n"


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    settings = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == settings
    plt.close("all")


def response(recording: Recording, trial: int, n_frames: int = 20) -> np.ndarray:
    stored = recording.trials[trial].responses
    assert stored is not None
    return stored[:, :n_frames].astype(np.float32)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_a_trial_is_drawn_with_its_frames_rows_and_behavior(dataset: xr.Dataset, recording: Recording) -> None:
    units = recording.unit_ids[[3, 0, 2]].tolist()
    figure = dataset.sensorium.plot_trial(1, neurons=units)
    figure.canvas.draw()
    frames, (rows, running, dilation, pupil) = figure.axes[:8], figure.axes[8:]
    np.testing.assert_array_equal(
        frames[7].images[0].get_array(), recording.trials[1].videos[..., 19].astype(np.float32)
    )
    # One scale for all rows, in the order asked for, from the top.
    wanted = response(recording, 1)[[3, 0, 2]]
    drawn = np.array([line.get_ydata() for line in rows.lines])
    scale = np.ptp(drawn) and (drawn[0] - 2).max() / wanted[0].max()
    np.testing.assert_allclose(drawn, wanted * scale + np.array([[2], [1], [0]]), rtol=1e-4, atol=1e-5)
    assert [label.get_text() for label in rows.get_yticklabels()] == [str(unit) for unit in units]
    (bar,) = [text for text in rows.texts if text.get_gid() == "scale bar"]
    size = float(bar.get_text().split()[0])
    assert f"{size:g}"[0] in "125"
    assert size <= wanted.max()
    height = rows.texts[0].xyann[1] - rows.texts[0].xy[1]
    np.testing.assert_allclose(abs(height), size * scale, rtol=1e-4)
    behavior, centers = (
        np.float32(getattr(recording.trials[1], name)[:, :20]) for name in ("behavior", "pupil_center")
    )
    np.testing.assert_array_equal(running.lines[0].get_ydata(), behavior[1])
    np.testing.assert_array_equal(dilation.lines[0].get_ydata(), behavior[0])
    np.testing.assert_array_equal([line.get_ydata() for line in pupil.lines], centers)
    assert "trial 1, oracle" in figure.get_suptitle()
    assert pupil.get_xlabel() == "time from stimulus onset (s)"
    assert all("(" in axes.get_ylabel() for axes in (rows, running, dilation, pupil))


def test_by_default_the_strongest_neurons_are_drawn(dataset: xr.Dataset, recording: Recording) -> None:
    rows = dataset.sensorium.plot_trial(1).axes[8]
    assert len(rows.lines) == recording.trials[1].responses.shape[0]


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


def make_fields(dataset: xr.Dataset, n_lags: int = 3) -> xr.DataArray:
    values = np.random.default_rng(2).standard_normal((dataset.sizes["neuron"], n_lags, 36, 64))
    values[1, 1, 5, 6] = -9.0
    return xr.DataArray(
        values,
        dims=("neuron", "lag", "height", "width"),
        coords={"neuron": dataset.neuron.values, "lag": np.arange(n_lags), "lag_s": ("lag", np.arange(n_lags) / 30)},
        attrs={"units": "1/s"},
    )


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


def make_tuning(dataset: xr.Dataset) -> xr.Dataset:
    n_neurons = dataset.sizes["neuron"]
    columns = {"orientation_selectivity": 0.42, "direction_selectivity": 0.2, "preferred_direction": 95.0,
               "orientation_p": 0.0001, "direction_p": 0.04}  # fmt: skip
    return xr.Dataset(
        {
            "response": (("neuron", "direction"), np.arange(n_neurons * 4.0).reshape(n_neurons, 4)),
            **{name: ("neuron", np.full(n_neurons, value)) for name, value in columns.items()},
        },
        coords={"neuron": dataset.neuron.values, "direction": [90.0, 0.0, 180.0, 270.0]},
    )


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


def test_behavior_of_a_session_is_the_mean_of_each_trial(dataset: xr.Dataset, recording: Recording) -> None:
    running, dilation, pupil = dataset.sensorium.plot_behavior().axes
    assert "not known" in pupil.get_xlabel()
    trial = recording.trials[2]
    assert running.lines[0].get_ydata()[2] == pytest.approx(trial.behavior[1, :19].mean(), rel=1e-5)
    assert dilation.lines[0].get_ydata()[2] == pytest.approx(trial.behavior[0, :19].mean(), rel=1e-5)
    assert pupil.lines[1].get_ydata()[2] == pytest.approx(trial.pupil_center[1, :19].mean(), rel=1e-5)


def test_a_session_is_drawn_on_its_time_line(dataset: xr.Dataset, recording: Recording) -> None:
    onset = np.array([600.0, 30.0, 90.0, np.nan, 120.0, 60.0])
    placed = dataset.assign_coords(onset=("trial", onset), presentation=("trial", [9, 1, 3, -1, 4, 2]))
    figure = placed.sensorium.plot_session()
    trials, repeats, responses, *_ = figure.axes
    assert "5 trials, 1 more left out" in figure.get_suptitle()
    assert "min" in figure.axes[-1].get_xlabel()
    assert [label.get_text() for label in trials.get_yticklabels()] == ["train", "oracle", "live_test_main"]
    bars = {tuple(path.vertices[:2, 0].round(3)) for part in trials.collections for path in part.get_paths()}
    begins = {round(float(np.min(one)), 3) for one in bars}
    assert begins == {0.5, 1.5, 2.0, 10.0}
    # The broken trial has a mark of its own, on the row of its tier.
    np.testing.assert_array_equal(trials.lines[0].get_xydata(), [[1.0, 0.0]])
    # Trials 1 and 2 show one movie.
    middles = np.array([30 + 20 / 29.967 / 2, 90 + 19 / 29.967 / 2]) / 60
    np.testing.assert_allclose(repeats.lines[0].get_xdata(), middles)
    assert repeats.get_ylabel() == "repeated\nmovies (1)"
    means = [response(recording, trial, n).mean() for trial, n in ((1, 20), (2, 19), (0, 300))]
    np.testing.assert_allclose(responses.lines[0].get_ydata(), means, rtol=1e-5)


def test_where_times_are_unknown_trials_stand_in_the_order_of_presentation(dataset: xr.Dataset) -> None:
    onset = np.array([np.nan, 0.0, np.nan, np.nan, np.nan, np.nan])
    placed = dataset.assign_coords(onset=("trial", onset), presentation=("trial", [5, 0, 2, -1, 3, 1]))
    figure = placed.sensorium.plot_session()
    assert "place in the session" in figure.axes[-1].get_xlabel()
    assert "5 trials, 1 more left out" in figure.get_suptitle()
    np.testing.assert_allclose(figure.axes[2].lines[0].get_xdata(), [0.5, 2.5, 5.5])
    with pytest.raises(UsageError, match="no trial"):
        dataset.isel(trial=[]).sensorium.plot_session()


def test_a_film_shows_the_trial_and_is_one_page(dataset: xr.Dataset, tmp_path: Path) -> None:
    from PIL import Image

    film = dataset.sensorium.animate(0)
    page = film._repr_html_()
    frames = re.findall(r'"(/9j/[^"]+)"', page)
    # Every second frame of 300: pages with more become slow.
    assert len(frames) == 150
    assert film.interval_ms == pytest.approx(2000 / 30)
    assert "http" not in page
    first, later = (Image.open(io.BytesIO(base64.b64decode(frames[i]))) for i in (0, 75))
    assert first.size == (448, 416)
    assert np.abs(np.asarray(first, float) - np.asarray(later, float)).max() > 50
    gif = dataset.sensorium.animate(1).save(tmp_path / "film.gif")
    with Image.open(gif) as shown:
        assert shown.n_frames == 20
        assert shown.info["duration"] == 30
    dataset.sensorium.animate(1).save(gif)
    html = film.save(tmp_path / "film.html")
    assert frames[7] in html.read_text()


def test_a_film_replaces_nothing_else(dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = dataset.sensorium.animate(1)
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(UsageError):
        film.save(mine)
    assert mine.read_text() == "<p>mine</p>"
    with pytest.raises(UsageError, match=r"\.html"):
        film.save(tmp_path / "film.avi")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ffmpeg"):
        film.save(tmp_path / "film.mp4")
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho cannot >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UsageError, match="cannot"):
        film.save(tmp_path / "film.mp4")
    # Every frame arrives as raw pixels, and the program's file is what is kept.
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\n')
    written = film.save(tmp_path / "film.mp4").read_bytes()
    assert int(written.split()[0]) == 20 * 448 * 416 * 3
    film.save(tmp_path / "film.mp4")


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


def test_the_page_of_a_session_tells_its_story_and_escapes_names(dataset: xr.Dataset) -> None:
    text = repr(dataset.sensorium)
    assert text.startswith(f"<session F ({dataset.attrs['session']}): 6 trials, 5 neurons>")
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("live_test_main")]
    assert row == ["live_test_main", "1", "NaturalVideo", "300", "0", "1", "0"]
    assert "pupil dilation, running speed" in text
    placed = dataset.assign_coords(
        presentation=("trial", [0, 1, 3, 4, 5, 6]), onset=("trial", [0.0, 10.0] + [np.nan] * 4)
    )
    assert "place in the session: known\n" in repr(placed.sensorium)
    assert "time in the session: known of 2 of 6 trials" in repr(placed.sensorium)
    bare = dataset.drop_vars("behavior").assign_attrs(alias="<b>F</b>\n", simulated=1)
    bare = bare.assign_coords(tier=("trial", ["<script>"] * 6))
    page = bare.sensorium._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "simulated session &lt;b&gt;F&lt;/b&gt;\\n" in page
    assert "behavior: not recorded" in page
    assert "\n  behavior" in repr(bare.sensorium)
    repr(xr.Dataset().sensorium)


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


def test_the_scale_bar_is_seen_on_a_dark_style(dataset: xr.Dataset) -> None:
    with matplotlib.style.context("dark_background"):
        rows = dataset.sensorium.plot_trial(1).axes[8]
    (bar,) = [text.arrow_patch for text in rows.texts if getattr(text, "arrow_patch", None) is not None]
    assert matplotlib.colors.to_hex(bar.get_edgecolor()) == "#000000"


def pyplot() -> Any:
    import matplotlib.pyplot as plt

    return plt
