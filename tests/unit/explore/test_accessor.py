from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import sensorium_data.explore.accessor
from fixtures.explored import BROKEN
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.testing import Recording


def test_trials_are_selected_by_tier_and_stimulus(dataset: xr.Dataset) -> None:
    assert dataset.sensorium.select(tier="oracle").trial.values.tolist() == [1, 2, 3]
    assert dataset.sensorium.select(tier=["oracle", "train"]).trial.values.tolist() == [0, 1, 2, 3]
    assert dataset.sensorium.select(stimulus="NaturalVideo").trial.values.tolist() == [0, 4]
    assert dataset.sensorium.select(tier="train", stimulus="unknown").trial.values.tolist() == []


def test_broken_trials_are_left_out_unless_asked_for(dataset: xr.Dataset) -> None:
    assert dataset.sensorium.select().trial.values.tolist() == [0, 1, 2, 3, 4]
    assert dataset.sensorium.select(tier="train", valid=False).trial.values.tolist() == [0, BROKEN]


def test_selecting_reads_nothing(dataset: xr.Dataset) -> None:
    assert dataset.sensorium.select(tier="oracle").responses.chunks is not None


@pytest.mark.parametrize(("names", "near"), [({"tier": "oracel"}, "oracle"), ({"stimulus": "gabor"}, "Gabor")])
def test_an_unknown_name_proposes_a_near_one(names: dict[str, str], near: str, dataset: xr.Dataset) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean {near}"):
        dataset.sensorium.select(**names)


def test_a_trial_is_cut_to_its_frames(dataset: xr.Dataset, recording: Recording) -> None:
    block = dataset.sensorium.trial_block(2).load()
    assert block.sizes["time"] == 19
    np.testing.assert_array_equal(block.responses, recording.trials[2].responses[:, :19].astype(np.float32))


def test_repeats_are_found_by_the_sessions_own_id_and_by_that_across_sessions(dataset: xr.Dataset) -> None:
    # Another session showed as one movie what this one has under two ids.
    groups = np.where(np.isin(dataset.trial, [1, 2, 3]), "29156-11-10:4", dataset.movie)
    joined = dataset.assign_coords(movie_group=("trial", groups))
    for name in (str(dataset.movie.sel(trial=2).item()), "29156-11-10:4"):
        assert joined.sensorium.repeats(name).trial.values.tolist() == [1, 2, 3]
    alone = dataset.drop_vars("movie_group")
    assert alone.sensorium.repeats(str(dataset.movie.sel(trial=2).item())).trial.values.tolist() == [1, 2]


def test_repeats_are_the_trials_of_a_movie_cut_to_the_longest(dataset: xr.Dataset) -> None:
    movie = str(dataset.movie.sel(trial=2).item())
    repeats = dataset.sensorium.repeats(movie)
    assert repeats.trial.values.tolist() == [1, 2]
    assert repeats.sizes["time"] == 20


def test_traces_are_one_neurons_responses(dataset: xr.Dataset, recording: Recording) -> None:
    unit = int(recording.unit_ids[3])
    traces = dataset.sensorium.traces(unit)
    assert traces.dims == ("trial", "time")
    expected = recording.trials[0].responses[3, :300].astype(np.float32)
    np.testing.assert_array_equal(traces.sel(trial=0)[:300], expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda accessor: accessor.trial_block(99),
        lambda accessor: accessor.traces(-1),
        lambda accessor: accessor.plot_frames(99),
        lambda accessor: accessor.plot_frames(0, n_frames=0),
        lambda accessor: accessor.plot_frames(0, n_frames=1000),
        lambda accessor: accessor.plot_trial(BROKEN),
        lambda accessor: accessor.plot_frames(BROKEN),
        lambda accessor: accessor.repeats("nothing"),
    ],
)
def test_what_is_not_there_is_a_usage_error(call, dataset: xr.Dataset) -> None:
    with pytest.raises(UsageError):
        call(dataset.sensorium)


def test_registering_does_not_import_matplotlib() -> None:
    code = "import sys, sensorium_data, sensorium_data.explore.accessor; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_accessor_is_documented() -> None:
    assert sensorium_data.explore.accessor.SensoriumAccessor.__doc__


def test_tiers_are_selected_by_the_words_of_the_command_line(dataset: xr.Dataset) -> None:
    assert dataset.sensorium.select(tier="test").trial.values.tolist() == [4]
    assert dataset.sensorium.select(tier="all").trial.values.tolist() == [0, 1, 2, 3, 4]


def test_trials_are_selected_by_movie(dataset: xr.Dataset) -> None:
    movie = str(dataset.movie.sel(trial=2).item())
    assert dataset.sensorium.select(movie=movie).trial.values.tolist() == [1, 2]
    other = str(dataset.movie.sel(trial=3).item())
    assert dataset.sensorium.select(movie=[movie, other], tier="oracle").trial.values.tolist() == [1, 2, 3]
    with pytest.raises(UnknownNameError, match="unknown movie"):
        dataset.sensorium.select(movie="nothing")


def test_neurons_are_selected_by_depth(dataset: xr.Dataset) -> None:
    depths = np.sort(dataset.z.values)
    selected = dataset.sensorium.select(depth=(depths[1], depths[-2]))
    expected = dataset.neuron.values[(dataset.z.values >= depths[1]) & (dataset.z.values <= depths[-2])]
    assert selected.neuron.values.tolist() == expected.tolist()
    for wrong in ((300, 200), 200, (1, 2, 3), ("a", "b")):
        with pytest.raises(UsageError, match="no range of depth"):
            dataset.sensorium.select(depth=wrong)
    with pytest.raises(UsageError, match="no positions"):
        dataset.drop_vars("z").sensorium.select(depth=(0, 1))


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
