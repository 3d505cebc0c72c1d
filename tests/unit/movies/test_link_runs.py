"""What a run of linking reads, keeps, and leaves as it is."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sensorium_data.movies.grouping
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
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.movies import links as movie_links
from sensorium_data.sessions import find_session
from sensorium_data.store import (
    LINKS_KEY,
    MovieLinks,
    MovieScreen,
    Store,
    locate_screen,
    open_session,
    open_store,
    verify_root,
)
from sensorium_data.testing import make_movie


def test_a_second_run_reads_no_video_and_writes_nothing(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link_movies(store)
    path = Path(store, LINKS_KEY)
    before = path.stat()
    monkeypatch.setattr("sensorium_data.movies.links.join_sessions", None)
    links = link_movies(store)
    assert links == MovieLinks.from_bytes(path.read_bytes())
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_a_finished_store_may_be_read_only(store: str) -> None:
    link_movies(store)
    Path(store).chmod(0o555)
    try:
        assert link_movies(store).sessions.keys() == {find_session(alias).name for alias in "AFJ"}
    finally:
        Path(store).chmod(0o755)


def test_only_a_new_session_is_compared(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = tmp_path / "aside"
    Path(store, find_session("J").name).rename(aside)
    link_movies(store)
    aside.rename(Path(store, find_session("J").name))
    compared = []
    same_movie = sensorium_data.movies.grouping.same_movie

    def counted(video: np.ndarray, other: np.ndarray, largest_difference: float) -> bool:
        compared.append((video, other))
        return same_movie(video, other, largest_difference)

    monkeypatch.setattr("sensorium_data.movies.session_joining.same_movie", counted)
    link_movies(store, jobs=1)
    # Movie 1 and movie 4 of J, once each.
    assert len(compared) == 2
    assert shown_together(store, "AFJ") == expect_together(MOVIES)


def test_two_runs_at_once_do_no_harm(store: str, linked: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: link_movies(store), range(3)))
    assert found[0] == found[1] == found[2]
    assert Path(store, LINKS_KEY).read_bytes() == Path(linked, LINKS_KEY).read_bytes()
    assert not list(Path(store).glob(".*")), "no lock and no temporary file is left"


def test_what_a_killed_run_left_is_cleared(store: str) -> None:
    leftover = Path(store, f".{LINKS_KEY}.{'0' * 32}.tmp")
    leftover.write_bytes(b"half")
    link_movies(store)
    assert not leftover.exists()


def note_signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that is told whose signatures are read."""
    read: list[str] = []
    signatures = Store.signatures

    def note(store: Store, session: str) -> xr.DataArray:
        read.append(find_session(session).alias)
        return signatures(store, session)

    monkeypatch.setattr(Store, "signatures", note)
    return read


def set_aside(store: str, alias: str) -> Path:
    """Move a session out of a store."""
    group = Path(store, find_session(alias).name)
    return group.rename(Path(store).parent / "aside")


def put_back(store: str, aside: Path, alias: str) -> None:
    aside.rename(Path(store, find_session(alias).name))


def locate_screens(store: str, aliases: str) -> dict[str, Path]:
    return {alias: Path(store, locate_screen(find_session(alias).name)) for alias in aliases}


def test_of_sessions_that_were_compared_only_screens_are_read(
    store: str, linked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = set_aside(store, "J")
    link_movies(store)
    put_back(store, aside, "J")
    read = note_signatures(monkeypatch)
    link_movies(store)
    assert set(read) == {"J"}
    assert Path(store, LINKS_KEY).read_bytes() == Path(linked, LINKS_KEY).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "cut short", "of another conversion"])
def test_a_screen_that_cannot_be_used_is_made_anew(
    damage: str, store: str, linked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = set_aside(store, "J")
    link_movies(store)
    put_back(store, aside, "J")
    screens, sound = locate_screens(store, "AF"), locate_screens(linked, "AF")
    match damage:
        case "missing":
            screens["A"].unlink()
        case "cut short":
            screens["A"].write_bytes(screens["A"].read_bytes()[:-1])
        case _:
            screen = MovieScreen.from_bytes(screens["A"].read_bytes())
            cells = np.zeros_like(screen.cells)
            screens["A"].write_bytes(replace(screen, ledger="0" * 64, cells=cells).to_bytes())
    read = note_signatures(monkeypatch)
    link_movies(store)
    assert set(read) == {"A", "J"}
    assert Path(store, LINKS_KEY).read_bytes() == Path(linked, LINKS_KEY).read_bytes()
    assert screens["A"].read_bytes() == sound["A"].read_bytes()


def test_screens_are_kept_of_the_sessions_that_are_there(store: str) -> None:
    shutil.rmtree(Path(store, "movies"))
    link_movies(store)
    screens = locate_screens(store, "AFJ")
    assert set(Path(store, "movies").iterdir()) == set(screens.values())
    notes = Path(store, "movies", "notes.screen")
    notes.write_text("mine")
    set_aside(store, "A")
    link_movies(store)
    assert set(Path(store, "movies").iterdir()) == {screens["F"], screens["J"], notes}


def test_what_a_killed_writer_of_a_screen_left_is_cleared(store: str) -> None:
    screen = locate_screens(store, "A")["A"]
    screen.unlink()
    leftover = screen.with_name(f".{screen.name}.{'0' * 32}.tmp")
    leftover.write_bytes(b"half")
    link_movies(store)
    assert not leftover.exists()


def test_a_damaged_screen_is_found_and_repaired(store: str) -> None:
    link_movies(store)
    screen = locate_screens(store, "F")["F"]
    screen.write_bytes(screen.read_bytes()[::-1])
    report = verify_root(open_store(store))
    assert [problem.partition(": ")[0] for problem in report.problems] == [f"movies/{screen.name}"]
    assert "--repair" in report.remedy
    recording = record("A")
    recording.write(Path(store).parent / "archives")
    convert_session(recording.session, store, source=str(Path(store).parent / "archives"), repairs=True)
    assert verify_root(open_store(store)).passed


def test_pixels_with_large_errors_are_compared_by_all_of_their_signatures(tmp_path: Path) -> None:
    video = make_movie(N_FRAMES, seed=77)
    recordings = [show(record("A"), 3, video), show(record("F"), 3, video + 30)]
    store = ingest(tmp_path / "store", recordings)
    state_error_of_videos(Path(store, find_session("F").name), 29.5)
    link_movies(store)
    movies = {alias: open_session(store, alias).movie_group.values[3] for alias in "AF"}
    assert movies["A"] == movies["F"]


def test_few_sessions_are_held_open(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movie_links._OpenSessions, "_LIMIT", 1)
    released = []
    release = Store.release
    monkeypatch.setattr(Store, "release", lambda s, name: (released.append(name), release(s, name))[1])
    link_movies(store, jobs=1)
    assert shown_together(store, "AFJ") == expect_together(MOVIES)
    assert len(released) >= 3
    assert set(released) == {find_session(alias).name for alias in "AFJ"}


def test_a_store_behind_a_url_is_linked(linked: str, tmp_path: Path) -> None:
    for alias in "AF":
        record(alias).write(tmp_path)
        convert_session(find_session(alias), "memory://linked/store", source=str(tmp_path))
    link_movies("memory://linked/store")
    found, expected = (open_session(root, "F").movie_group for root in ("memory://linked/store", linked))
    assert found.identical(expected)


def test_one_session_alone_has_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ingest(tmp_path / "store", [record("F")])
    own = open_session(store, "F").movie_group
    assert link_movies(store).n_linked_movies == 0
    assert open_session(store, "F").movie_group.equals(own)


def test_progress_counts_the_trials(store: str) -> None:
    calls: list[tuple[str, int, int]] = []
    link_movies(store, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("link movies", 13, 13)


def test_only_videos_whose_signatures_agree_are_read(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[tuple[str, int]] = set()

    def note(opened: movie_links._OpenSessions, name: str, position: int) -> np.ndarray:
        read.add((find_session(name).alias, position))
        return read_video(opened, name, position)

    read_video = movie_links._OpenSessions.read_video
    monkeypatch.setattr(movie_links._OpenSessions, "read_video", note)
    link_movies(store)
    assert shown_together(store, "AFJ") == expect_together(MOVIES)
    shows = {alias: set(MOVIES[alias].values()) for alias in "AFJ"}
    shared = {
        (alias, position)
        for alias in "AFJ"
        for position, (_, movie) in enumerate(sorted(MOVIES[alias].items()))
        if any(movie in shows[other] for other in "AFJ" if other != alias)
    }
    assert read
    assert read <= shared
