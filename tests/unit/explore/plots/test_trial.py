"""The picture of a trial: its frames, its neurons' rows and its behavior."""

from __future__ import annotations

import matplotlib
import matplotlib.style
import numpy as np
import pytest
import xarray as xr

from fixtures.pictures import response
from sensorium_data.testing import Recording


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


def test_by_default_the_neurons_of_the_largest_responses_are_plotted(
    dataset: xr.Dataset, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium_data.explore.plots.trial._N_NEURONS_SHOWN", 2)
    shown: set[tuple[int, ...]] = set()
    for trial in (0, 1, 3):
        stored = recording.trials[trial].responses
        assert stored is not None
        peaks = np.nanmax(stored[:, : int(dataset.n_frames.sel(trial=trial))], axis=1)
        least = sorted(peaks)[-2]
        expected = [int(unit) for unit, peak in zip(recording.unit_ids, peaks, strict=True) if peak >= least]
        rows = dataset.sensorium.plot_trial(trial).axes[8]
        assert [int(label.get_text()) for label in rows.get_yticklabels()] == expected
        shown.add(tuple(expected))
    assert len(shown) > 1


def test_the_scale_bar_is_seen_on_a_dark_style(dataset: xr.Dataset) -> None:
    with matplotlib.style.context("dark_background"):
        rows = dataset.sensorium.plot_trial(1).axes[8]
    (bar,) = [text.arrow_patch for text in rows.texts if getattr(text, "arrow_patch", None) is not None]
    assert matplotlib.colors.to_hex(bar.get_edgecolor()) == "#000000"
