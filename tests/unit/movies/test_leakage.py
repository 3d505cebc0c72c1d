from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sensorium_data.errors import StoreError
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies, report_leakage
from sensorium_data.movies.leakage import LeakageReport, MovieLeak, find_leaks
from sensorium_data.sessions import find_session
from sensorium_data.testing.recordings import make_recording


def session(*trials: tuple[str, str], withheld: tuple[int, ...] = (), broken: tuple[int, ...] = ()) -> xr.Dataset:
    """A session without arrays, whose trials are (tier, movie)."""
    numbers = np.arange(len(trials))
    return xr.Dataset(
        coords={
            "trial": numbers,
            "tier": ("trial", [tier for tier, _ in trials]),
            "movie_group": ("trial", [movie for _, movie in trials]),
            "valid": ("trial", ~np.isin(numbers, broken)),
            "responses_withheld": ("trial", np.isin(numbers, withheld)),
        }
    )


def test_a_movie_scored_here_and_trained_on_there_leaks() -> None:
    recordings = {
        "one": session(("train", "x"), ("train", "y"), ("train", "y"), ("oracle", "z")),
        "other": session(("oracle", "y"), ("oracle", "y"), ("oracle", "y"), ("train", "x")),
    }
    report = find_leaks(recordings)
    assert report == LeakageReport(("one", "other"), (MovieLeak("y", "other", "oracle", "one", "train", 3, 2),))
    assert report.n_leaks_from_train == 1


def test_what_is_trained_on_in_both_or_shown_in_one_session_alone_does_not_leak() -> None:
    recordings = {"one": session(("train", "x"), ("oracle", "z")), "other": session(("train", "x"), ("oracle", "w"))}
    assert find_leaks(recordings).leaks == ()


def test_published_responses_of_other_tiers_are_marked_apart_and_withheld_ones_cannot_leak() -> None:
    recordings = {
        "old": session(("live_test_main", "m"), ("live_test_main", "m"), ("train", "t")),
        "new": session(("oracle", "m"), ("final_test_bonus", "g"), withheld=(1,)),
        "third": session(("live_test_bonus", "g"), ("live_test_bonus", "g"), withheld=(0,)),
    }
    report = find_leaks(recordings)
    assert report.leaks == (
        MovieLeak("g", "new", "final_test_bonus", "third", "live_test_bonus", 1, 1),
        MovieLeak("m", "new", "oracle", "old", "live_test_main", 1, 2),
        MovieLeak("m", "old", "live_test_main", "new", "oracle", 2, 1),
    )
    assert not any(leak.is_from_train for leak in report.leaks)
    assert report.n_leaks_from_train == 0


def test_broken_trials_show_nothing() -> None:
    recordings = {"one": session(("train", "x"), broken=(0,)), "other": session(("oracle", "x"))}
    assert find_leaks(recordings).leaks == ()


def test_movies_are_counted_by_pairs_of_tiers() -> None:
    recordings = {
        "one": session(("train", "x"), ("train", "y"), ("oracle", "z")),
        "other": session(("oracle", "x"), ("oracle", "x"), ("oracle", "y"), ("live_test_main", "z")),
    }
    table = find_leaks(recordings).count_by_tiers().set_index(["scored_session", "scored_tier"])
    assert len(table) == 3
    row = table.loc["other", "oracle"]
    assert (row.trained_session, row.trained_tier, row.is_from_train) == ("one", "train", True)
    assert (row.n_movies, row.n_scored_trials, row.n_trained_trials) == (2, 3, 2)
    assert not table.loc[("one", "oracle"), "is_from_train"]


def test_a_clean_report_has_empty_tables() -> None:
    report = find_leaks({"one": session(("train", "x"))})
    assert len(report.to_table()) == len(report.count_by_tiers()) == 0
    assert list(report.count_by_tiers().columns)[:2] == ["scored_session", "scored_tier"]
    assert json.loads(report.to_json()) == {"sessions": ["one"], "leaks": []}


def test_table_and_json_say_the_same() -> None:
    recordings = {"one": session(("train", "x")), "other": session(("oracle", "x"))}
    report = find_leaks(recordings)
    rows = json.loads(report.to_json())["leaks"]
    assert rows == json.loads(report.to_table().to_json(orient="records"))
    assert rows[0]["is_from_train"] is True


def test_a_store_whose_movies_were_not_compared_has_no_report(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    for alias in "AF":
        recording = make_recording(alias, ["train", "oracle"], movies={0: 1, 1: 2} if alias == "A" else {0: 2, 1: 3})
        recording.write(tmp_path / "archives")
        convert_session(recording.session, store, source=str(tmp_path / "archives"))
        if alias == "A":
            assert report_leakage(store).leaks == (), "one session alone"
            link_movies(store)
    missing = find_session("F").name
    with pytest.raises(
        StoreError, match=rf"have not been compared .*: found {missing}; `sensorium ingest F --store .*` compares"
    ):
        report_leakage(store)
    link_movies(store)
    (leak,) = report_leakage(store).leaks
    assert (leak.scored_session, leak.scored_tier) == (find_session("A").name, "oracle")
    assert (leak.trained_session, leak.trained_tier) == (find_session("F").name, "train")
