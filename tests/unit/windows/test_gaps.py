"""Trials with missing behavior or pupil center: refused, interpolated, or left out."""

from __future__ import annotations

import numpy as np
import pytest

import sensorium_data as sd
from fixtures.recorded_stores import Recorded, record_session
from sensorium_data.errors import StoreError, UsageError
from sensorium_data.sessions import Tier
from sensorium_data.windows import NanPolicy, TrialReader


def blink(arrays: dict[str, np.ndarray]) -> None:
    arrays["pupil_center"][2, :, 20:30] = np.nan
    arrays["behavior"][2, 0, 24:32] = np.nan
    arrays["pupil_center"][3, 1, :4] = np.nan


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded]:
    """Training trials alone: the third blinks between recorded frames, the fourth at its start."""
    store = tmp_path_factory.mktemp("store")
    return str(store), record_session(store, "F", n_by_tier={"train": 6}, change=blink)


def test_the_default_refuses_and_says_what_can_be_done(recorded: tuple[str, Recorded]) -> None:
    store, made = recorded
    with pytest.raises(StoreError) as refusal:
        sd.window_batches(store, n_frames=20)
    message = str(refusal.value)
    for words in (
        f"trial {made.trials[2]},",
        "behavior holds",
        "frames 24-31",
        f"1 more trial like it: {made.trials[3]}",
    ):
        assert words in message
    for remedy in (f"--exclude F:{made.trials[2]}", "--nan drop-trial", "--nan interpolate:N"):
        assert remedy in message


def test_gaps_up_to_a_length_are_interpolated_linearly(recorded: tuple[str, Recorded]) -> None:
    store, made = recorded
    reader = TrialReader(store, ["F"], exclude=f"F:{made.trials[3]}", nan_policy="interpolate:10")
    found = reader.read("F", made.trials[2])
    n_frames = made.n_frames[2]
    for values, written in ((found.pupil_center, made.pupil_center), (found.behavior, made.behavior)):
        for row, original in zip(values, written[2, :, :n_frames], strict=True):
            known = np.flatnonzero(np.isfinite(original))
            np.testing.assert_allclose(row, np.interp(np.arange(n_frames), known, original[known]), rtol=1e-6)
    # Frames 20 to 31, of either variable.
    (note,) = (one for one in reader.describe_left_out("F", [Tier.TRAIN]) if "interpolated" in one)
    assert f"12 frames of 1 trial: {made.trials[2]}" in note
    trials = reader.select_trials("F", [Tier.TRAIN]).trials
    assert set(made.trials) - set(trials) == {made.trials[3]}


@pytest.mark.parametrize("policy", ["interpolate:9", "interpolate:10"])
def test_longer_gaps_and_those_at_the_start_are_not_filled(policy: str, recorded: tuple[str, Recorded]) -> None:
    store, made = recorded
    refused = made.trials[2 if policy == "interpolate:9" else 3]
    with pytest.raises(StoreError, match=f"trial {refused}, ") as refusal:
        sd.window_batches(store, n_frames=20, nan_policy=policy)
    is_long = policy == "interpolate:9"
    assert ("the longest here has 10" in str(refusal.value)) == is_long
    assert ("cannot fill a gap at the trial's start or end" in str(refusal.value)) != is_long


def test_such_trials_are_dropped_if_asked(recorded: tuple[str, Recorded]) -> None:
    store, made = recorded
    batches = sd.window_batches(store, n_frames=20, nan_policy="drop-trial", normalization="vivit-closed-loop")
    assert {trial for batch in batches for trial in batch.trials} == {*made.trials} - {*made.trials[2:4]}
    # The statistics that the normalization rests on are of the other trials too.
    kept = np.delete(made.pupil_center, [2, 3], axis=0)[:, :, : made.n_frames[0]]
    normalizer = batches.reader.open_normalizer("vivit-closed-loop", "F")
    np.testing.assert_allclose(normalizer.pupil_center_offset[:, 0], kept.mean(axis=(0, 2)), rtol=1e-5)
    everything = ",".join(f"F:{trial}" for trial in made.trials if trial not in made.trials[2:4])
    with pytest.raises(
        UsageError, match=r"every trial of tier train is left out: found 4 excluded and 2 dropped for NaN"
    ):
        sd.window_batches(store, n_frames=20, nan_policy="drop-trial", exclude=everything)


@pytest.mark.parametrize("policy", ["interpolate", "interpolate:0", "interpolate:-1", "drop", "refuse:3", ""])
def test_policies_of_another_form_are_refused(policy: str) -> None:
    with pytest.raises(UsageError, match="one of refuse, interpolate:N, drop-trial"):
        NanPolicy.parse(policy)
