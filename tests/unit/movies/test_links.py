"""Movies that several sessions of a store show bear one id in all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from fixtures.linked_sessions import (
    MOVIES,
    N_FRAMES,
    expect_together,
    ingest,
    record,
    show,
    shown_together,
    state_error_of_videos,
)
from fixtures.stores import read_files
from sensorium_data.errors import StoreError, UsageError
from sensorium_data.ingest import verify_session
from sensorium_data.movies import link_movies, sign_video, split_by_movie
from sensorium_data.movies.leakage import find_leaks
from sensorium_data.schema import MOVIE_GROUP
from sensorium_data.sessions import find_session
from sensorium_data.store import (
    LINKS_KEY,
    MovieLinks,
    SessionLinks,
    Store,
    locate_screen,
    open_session,
    open_store,
)
from sensorium_data.store.open import open_sessions
from sensorium_data.testing import make_movie, serve_directory

# Which movies are the same


def test_trials_that_show_one_movie_bear_one_id_in_every_session(linked: str) -> None:
    assert shown_together(linked, "AFJ") == expect_together(MOVIES)


def test_the_id_is_the_first_sessions(linked: str) -> None:
    movies = {alias: open_session(linked, alias).movie_group.values.tolist() for alias in "AFJ"}
    assert movies["A"] == ["29156-11-10:0", "29156-11-10:1", "29156-11-10:1", "29156-11-10:3"]
    assert movies["F"] == ["29515-10-12:0", "29156-11-10:0", "29156-11-10:1", "29515-10-12:3", "29156-11-10:1"]
    assert movies["J"] == ["29156-11-10:1", "29515-10-12:0", "29515-10-12:0", "29755-2-8:3"]


def test_a_session_itself_never_changes(linked: str, store: str) -> None:
    shutil.rmtree(Path(store, "movies"))
    before = read_files(Path(store))
    link_movies(store)
    after = read_files(Path(store))
    made = {key: after.pop(key) for key in after.keys() - before.keys()}
    assert made.keys() == {LINKS_KEY, *(locate_screen(find_session(alias).name) for alias in "AFJ")}
    assert after == before
    assert open_store(store).as_stored("F").movie.values.tolist() == [
        "29515-10-12:0", "29515-10-12:1", "29515-10-12:2", "29515-10-12:3", "29515-10-12:2",
    ]  # fmt: skip
    assert verify_session(store, "F").passed


def test_a_tree_of_sessions_has_the_common_ids(linked: str) -> None:
    tree = open_sessions(linked)
    for alias in "AFJ":
        expected = open_session(linked, alias)
        found = tree[find_session(alias).name].to_dataset(inherit=False)
        assert found.movie_group.identical(expected.movie_group)
        assert found.movie_group.attrs == dict(MOVIE_GROUP.attributes)


def test_own_ids_are_the_same_for_every_reader_whatever_other_sessions_there_are(tmp_path: Path, linked: str) -> None:
    alone = ingest(tmp_path / "store", [record("F")])
    link_movies(alone)
    own = ["29515-10-12:0", "29515-10-12:1", "29515-10-12:2", "29515-10-12:3", "29515-10-12:2"]
    group = find_session("F").name
    for store in (alone, linked):
        plain = xr.open_zarr(f"{store}/{group}")
        tree = open_sessions(store)[group]
        for reader in (open_session(store, "F"), open_store(store)["F"], tree, plain):
            assert reader.movie.values.tolist() == own
        assert "movie_group" not in plain
    assert open_session(alone, "F").movie_group.values.tolist() == own
    with pytest.raises(UsageError, match=r"no coordinate movie_group.*open it with sensorium_data\.open_session"):
        find_leaks({alias: xr.open_zarr(f"{linked}/{find_session(alias).name}") for alias in "AF"})
    with pytest.raises(UsageError, match="no coordinate movie_group"):
        split_by_movie({"F": plain}, 2)


def test_a_session_that_was_not_compared_says_so(store: str) -> None:
    groups = open_session(store, "F").movie_group
    assert groups.values.tolist() == open_session(store, "F").movie.values.tolist()
    assert groups.attrs["comment"] == "equal to movie: the session has not been compared with others"


def test_repeats_of_two_sessions_share_more_than_56_percent_of_their_frames(tmp_path: Path) -> None:
    one = make_movie(N_FRAMES, seed=1)
    changed, too_much = one.copy(), one.copy()
    changed[3, 4, :17] += 9.0
    too_much[3, 4, :18] += 9.0
    first = record("A")
    second = show(show(record("F"), 2, changed), 4, too_much)
    store = ingest(tmp_path / "store", [first, second])
    link_movies(store)
    movies = open_session(store, "F").movie_group.values.tolist()
    assert movies[2] == movies[4] == "29156-11-10:1", "its repeats join them"
    store = ingest(tmp_path / "other" / "store", [first, show(show(record("F"), 2, too_much), 4, too_much)])
    link_movies(store)
    movies = open_session(store, "F").movie_group.values.tolist()
    assert movies[2] == movies[4] == "29515-10-12:2"


def test_sessions_are_joined_through_others_between_them(tmp_path: Path) -> None:
    movie = make_movie(N_FRAMES, seed=77)
    steps = [movie.copy(), movie.copy()]
    steps[0][3, 4, :12] += 9.0
    steps[1][3, 4, :24] += 9.0
    ends = [show(record("A"), 3, movie), show(record("J"), 3, steps[1])]
    store = ingest(tmp_path / "store", ends)
    link_movies(store)
    assert open_session(store, "J").movie_group.values[3] == "29755-2-8:3"
    ingest(tmp_path / "store", [show(record("F"), 3, steps[0])])
    link_movies(store)
    assert open_session(store, "J").movie_group.values[3] == "29156-11-10:3"


def test_a_session_may_show_under_two_ids_what_another_shows_as_one_movie(tmp_path: Path) -> None:
    movie = make_movie(N_FRAMES, seed=77)
    between, end = movie.copy(), movie.copy()
    between[3, 4, :12] += 9.0
    end[3, 4, :24] += 9.0
    recordings = [show(show(record("A"), 0, end), 3, movie), show(record("F"), 3, between)]
    store = ingest(tmp_path / "store", recordings)
    assert len(set(open_session(store, "A").movie_group.values[[0, 3]])) == 2
    link_movies(store)
    assert set(open_session(store, "A").movie_group.values[[0, 3]]) == {"29156-11-10:0"}
    assert open_session(store, "F").movie_group.values[3] == "29156-11-10:0"


def test_broken_trials_show_no_movie_of_another_session(tmp_path: Path) -> None:
    nothing = np.full((36, 64, 42), np.nan)
    recordings = [record("A").with_trial(3, videos=nothing), record("F").with_trial(3, videos=nothing)]
    store = ingest(tmp_path / "store", recordings)
    link_movies(store)
    assert open_session(store, "A").movie_group.values[3] != open_session(store, "F").movie_group.values[3]


@pytest.mark.parametrize(
    ("difference", "error", "is_joined"), [(1.05, 0.0, False), (1.05, 0.0625, True), (1.2, 0.0625, False)]
)
def test_what_is_stored_with_an_error_may_differ_by_that_much_more(
    difference: float, error: float, is_joined: bool, tmp_path: Path
) -> None:
    video = make_movie(N_FRAMES, seed=77)
    store = ingest(tmp_path / "store", [show(record("A"), 3, video), show(record("F"), 3, video + difference)])
    state_error_of_videos(Path(store, find_session("F").name), error)
    link_movies(store)
    movies = {alias: open_session(store, alias).movie_group.values[3] for alias in "AF"}
    assert (movies["A"] == movies["F"]) == is_joined


# What the ids depend on


@pytest.mark.parametrize(
    ("order", "at_once"),
    [
        pytest.param("JFA", True, id="JFA at once"),
        pytest.param("JAF", False, id="J then A then F"),
        pytest.param("FAJ", True, id="FAJ at once", marks=pytest.mark.slow),
        pytest.param("AFJ", False, id="A then F then J", marks=pytest.mark.slow),
    ],
)
def test_ids_do_not_depend_on_the_order_of_ingest(order: str, at_once: bool, linked: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    for alias in order:
        ingest(tmp_path / "store", [record(alias)])
        if not at_once:
            link_movies(store)
    link_movies(store)
    assert (tmp_path / "store" / LINKS_KEY).read_bytes() == Path(linked, LINKS_KEY).read_bytes()


def test_sessions_of_no_catalogue_come_last_by_name_and_scans_of_one_number_keep_their_movies_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {
        "dynamic1-2-3-Video-b": [4, 5],
        find_session("F").name: [5, 7],
        "dynamic1-2-3-Video-a": [6, 7],
        find_session("A").name: [7, 8],
    }
    recordings = {
        name: xr.Dataset(
            {
                "videos": (
                    ("trial", "time", "height", "width"),
                    [make_movie(40, m).transpose(2, 0, 1) for m in movies],
                    {"largest_absolute_error": 0.0},
                )
            },
            {
                "trial": [0, 1],
                "n_frames": ("trial", [40, 40]),
                "movie": ("trial", [f"{name.removeprefix('dynamic').partition('-V')[0]}:{trial}" for trial in (0, 1)]),
            },
            {"session": name},
        ).chunk(trial=1)
        for name, movies in shown.items()
    }
    patched = {
        "sessions": property(lambda store: [SimpleNamespace(name=name) for name in recordings]),
        "movies": lambda store, name: recordings[name],
        "videos": lambda store, name: recordings[name].videos.values,
        "signatures": lambda store, name: xr.DataArray(
            np.stack([sign_video(video) for video in recordings[name].videos.values]), dims=("trial", "time", "feature")
        ),
        "digest": lambda store, name: name,
        "ledger_digest": lambda store, name: name,
    }
    for name, function in patched.items():
        monkeypatch.setattr(Store, name, function)
    monkeypatch.setattr(
        "sensorium_data.movies.links._covers_all", lambda links, store: links.sessions.keys() == recordings.keys()
    )
    links = link_movies(str(tmp_path))
    assert {name: links.apply(dataset).movie_group.values.tolist() for name, dataset in recordings.items()} == {
        find_session("A").name: ["29156-11-10:0", "29156-11-10:1"],
        find_session("F").name: ["29515-10-12:0", "29156-11-10:0"],
        "dynamic1-2-3-Video-a": ["1-2-3:0", "29156-11-10:0"],
        "dynamic1-2-3-Video-b": ["dynamic1-2-3-Video-b:0", "29515-10-12:0"],
    }
    again = dict(recordings)
    recordings.clear()
    recordings.update({name: again[name] for name in list(again)[::-1]})
    (tmp_path / LINKS_KEY).unlink()
    assert link_movies(str(tmp_path)) == links


def test_a_session_that_is_gone_leaves_no_trace(store: str, tmp_path: Path) -> None:
    link_movies(store)
    shutil.rmtree(Path(store, find_session("A").name))
    link_movies(store)
    expected = ingest(tmp_path / "other" / "store", map(record, "FJ"))
    link_movies(expected)
    assert Path(store, LINKS_KEY).read_bytes() == Path(expected, LINKS_KEY).read_bytes()


def test_a_session_converted_anew_is_read_with_its_own_ids_until_it_is_linked(store: str, tmp_path: Path) -> None:
    link_movies(store)
    shutil.rmtree(Path(store, find_session("F").name))
    changed = {0: 2, 1: 8, 2: 3, 3: 3, 4: 3}
    ingest(tmp_path / "store", [record("F", changed)])
    assert open_session(store, "F").movie_group.values.tolist() == [
        "29515-10-12:0", "29515-10-12:1", "29515-10-12:2", "29515-10-12:2", "29515-10-12:2",
    ]  # fmt: skip
    link_movies(store)
    assert shown_together(store, "AFJ") == expect_together({**MOVIES, "F": changed})


def test_the_same_grouping_of_another_archive_is_another_session(store: str, tmp_path: Path) -> None:
    link_movies(store)
    shutil.rmtree(Path(store, find_session("F").name))
    others = {trial: 50 + movie for trial, movie in MOVIES["F"].items()}
    ingest(tmp_path / "store", [record("F", others)])
    assert set(open_session(store, "F").movie_group.values.tolist()).isdisjoint(
        open_session(store, "A").movie_group.values
    )


# Reading


def test_links_are_read_over_http_with_one_request(linked: str, store: str) -> None:
    for root, n_requests in ((linked, 1), (store, 1)):
        with serve_directory(root) as server:
            found = open_session(server.url, "J")
            asked = [request for request in server.requests if LINKS_KEY in str(request)]
        assert len(asked) == n_requests
        assert found.movie_group.identical(open_session(root, "J").movie_group)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"version": 2, "sessions": {}}', b'{"version": 1, "sessions": 3}']
)
def test_a_damaged_file_is_refused_by_readers_and_made_anew(data: bytes, store: str, linked: str) -> None:
    path = Path(store, LINKS_KEY)
    path.write_bytes(data)
    with pytest.raises(
        StoreError, match=r"movies\.json: the ids of movies .* cannot be read: found .*; `sensorium ingest A --store "
    ):
        open_session(store, "F")
    link_movies(store)
    assert path.read_bytes() == Path(linked, LINKS_KEY).read_bytes()


def test_links_survive_their_file() -> None:
    links = MovieLinks({"mouse-1": SessionLinks("d1", {"a:1": "b:2"}), "mouse-2": SessionLinks("d2", {})})
    assert MovieLinks.from_bytes(links.to_bytes()) == links


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere: no such folder"):
        link_movies(str(tmp_path / "nowhere"))


def test_a_file_that_an_older_version_wrote_still_counts(store: str) -> None:
    link_movies(store)
    path = Path(store, LINKS_KEY)
    content = json.loads(path.read_bytes())
    del content["digest"]
    for links in content["sessions"].values():
        del links["content"]
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    assert link_movies(store).sessions.keys() == content["sessions"].keys()
    # Not even the file is written anew: the sessions themselves tell that they were compared.
    assert path.read_bytes() == before
