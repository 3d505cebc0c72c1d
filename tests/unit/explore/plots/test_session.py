"""The pictures of a whole session: its time line and its behavior."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from fixtures.pictures import response
from sensorium_data.errors import UsageError
from sensorium_data.testing import Recording


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
