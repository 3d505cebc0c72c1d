"""When trials were shown, by the archives' own numbers and by the rules of both releases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorium_data.archive import open_archive
from sensorium_data.ingest import convert_session
from sensorium_data.ingest.presentation import compute_onsets, find_places, read_presentation
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording, npy


def places(session: str, trials: list[int], trial_idx: list[str] | None = None) -> list[int]:
    return find_places(find_session(session), trials, trial_idx or [""] * len(trials)).tolist()


def with_numbers(recording: Recording, values: np.ndarray) -> Recording:
    name = f"{recording.session.name}/meta/trials/trial_idx.npy"
    return replace(recording, extra={name: npy(values)})


def images(first: int, n: int = 10) -> str:
    return "--".join(str(number) for number in range(first, first + n))


def test_ids_of_the_old_release_are_places_but_for_the_clip_that_e_lost() -> None:
    assert places("A", [0, 1, 3, 579, 739]) == [0, 1, 3, 579, 739]
    assert places("E", [0, 578, 579, 738]) == [0, 578, 580, 739]


@pytest.mark.parametrize("session", ["B", "C", "D"])
def test_where_the_old_release_showed_images_between_the_clips_is_not_known(session: str) -> None:
    assert places(session, [0, 1, 700]) == [-1, -1, -1]


def test_the_new_release_closes_gaps_in_ids_and_keeps_them_in_its_numbers() -> None:
    assert places("F", [0, 1, 2, 3], ["0", "2", "3", "25"]) == [0, 2, 3, 25]
    assert places("F", [0, 1]) == [-1, -1], "ids alone do not tell which trials were dropped"


def test_ten_images_are_one_clip() -> None:
    assert places("G", [0, 1, 2, 3], ["0", images(1), "11", images(13)]) == [0, 1, 2, 4]
    # Ten missing numbers are ten clips, or one of ten images.
    assert places("J", [0, 1, 2, 3], ["1", images(2), "22", "23"]) == [1, 2, -1, -1]


@pytest.mark.parametrize(
    "trial_idx",
    [
        ["0", "2", "1"],
        ["0", "1", "1"],
        ["0", "", "1"],
        ["0", "1.5", "2"],
        ["0", "-1", "2"],
        ["0", images(1, 9), "10"],
        ["0", "1--3--2--4--5--6--7--8--9--10", "11"],
        ["0", images(5), "14"],
        ["٠", "1", "2"],
    ],
)
def test_no_place_is_known_of_numbers_that_break_the_rule(trial_idx: list[str]) -> None:
    assert places("G", [0, 1, 2], trial_idx) == [-1, -1, -1]


def test_sessions_without_images_and_other_labs_have_none_of_their_rules() -> None:
    assert places("F", [0, 1], ["0", images(1)]) == [-1, -1]
    assert places("dynamic30001-2-5-Video-mylab", [0, 1], ["0", "1"]) == [-1, -1]


def test_onset_is_the_length_of_all_clips_before() -> None:
    onsets = compute_onsets(np.array([2, 0, 1, 4, -1]), [240, 300, 324, 300, 300])
    np.testing.assert_allclose(onsets, [624 / 29.967, 0, 300 / 29.967, np.nan, np.nan])
    assert onsets[2] == pytest.approx(10.011, abs=1e-3)
    # A broken trial's own onset is known, and none after it.
    np.testing.assert_allclose(compute_onsets(np.arange(3), [300, 0, 300]), [0, 300 / 29.967, np.nan])
    assert np.isnan(compute_onsets(np.array([1, 2]), [300, 300])).all()


def test_trial_idx_is_read_as_the_archive_has_it_and_stored_beside_place_and_onset(tmp_path: Path) -> None:
    recording = make_recording("G", ["train"] * 3 + ["oracle"], n_frames={0: 20, 1: 18, 2: 20, 3: 20}, n_padded=22)
    with_numbers(recording, np.array(["0", images(1), "12", "13"])).write(tmp_path / "archives")
    convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "archives"))
    dataset = open_session(str(tmp_path / "store"), "G")
    assert dataset.trial_idx.values.tolist() == ["0", images(1), "12", "13"]
    assert dataset.presentation.values.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(dataset.onset, [0, 20 / 29.967, np.nan, np.nan])
    assert (dataset.onset.attrs["units"], dataset.presentation.dtype.kind) == ("s", "i")


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.array(["2", "1", "0"]), "does not ascend"),
        (np.zeros((3, 1), int), "numbers or text (trials,) are expected"),
        (np.array([0.0, 1.0, 2.0]), "float64 (3,), numbers or text"),
        (np.array([0, 1]), "2 of at least 3 trials"),
        (np.array(["0", "1", "\x1b[2J"]), "text that is no number"),
        (np.array(["0", "1", "2" * 300]), "text that is no number"),
    ],
)
def test_numbers_that_make_no_sense_are_noted_and_no_place_is_known(
    values: np.ndarray, note: str, tmp_path: Path
) -> None:
    recording = make_recording("F", ["train"] * 3, n_frames=4, n_padded=5)
    with_numbers(recording, values).write(tmp_path)
    with open_archive(recording.session, [str(tmp_path)]) as archive:
        found = read_presentation(archive, recording.session, [0, 1, 2])
    assert len(found.notes) == 1
    assert note in found.notes[0]
    assert found.places.tolist() == [-1] * 3


@pytest.mark.parametrize("values", [np.array([0, 1, 5]), np.array([b"0", b"1", b"5"]), np.array(["0", "1", "5"])])
def test_numbers_may_be_integers_or_text(values: np.ndarray, tmp_path: Path) -> None:
    recording = make_recording("F", ["train"] * 3, n_frames=4, n_padded=5)
    with_numbers(recording, values).write(tmp_path)
    with open_archive(recording.session, [str(tmp_path)]) as archive:
        found = read_presentation(archive, recording.session, [0, 1, 2])
    assert (found.trial_idx, found.places.tolist(), found.notes) == (("0", "1", "5"), [0, 1, 5], ())
