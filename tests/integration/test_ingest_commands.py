"""``ingest``, ``verify`` and ``inspect`` as a user runs them: what they print, and their exit status."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome
from fixtures.stores import read_files
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session
from sensorium_data.testing import serve_directory
from sensorium_data.testing.faults import IgnoreRange
from sensorium_data.testing.recordings import make_recording

Command = Callable[..., Outcome]
F = find_session("F")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small archives of F and of a session that nobody described."""
    recording = make_recording("F", ["train", "oracle", "oracle", "live_test_main"], movies={1: 9, 2: 9})
    recording.write(tmp_path / "source")
    other = find_session("dynamic30001-2-5-Video-mylab")
    type(recording)(**{**vars(recording), "session": other}).write(tmp_path / "source")
    return tmp_path / "source"


def test_all_means_what_lies_at_the_source(sensorium: Command, source: Path, tmp_path: Path) -> None:
    outcome = sensorium("ingest", "all", "--store", tmp_path / "s", "--source", source, "--json")
    assert outcome.status == 0
    assert [report["alias"] for report in json.loads(outcome.out)] == ["F", "30001-2-5"]
    # Both show the same movies, and the catalogue's session names them.
    other = open_session(str(tmp_path / "s"), "dynamic30001-2-5-Video-mylab")
    assert other.movie_group.values.tolist() == open_session(str(tmp_path / "s"), "F").movie_group.values.tolist()


def test_a_rerun_says_so_and_changes_nothing(sensorium: Command, source: Path, tmp_path: Path) -> None:
    arguments = ("ingest", "F", "--store", tmp_path / "s", "--source", source)
    assert "converted" in sensorium(*arguments).out
    before = read_files(tmp_path / "s")
    again = sensorium(*arguments)
    assert "already done" in again.out
    assert read_files(tmp_path / "s") == before


def test_a_rerun_loads_nothing_that_takes_long_to_import(sensorium: Command, source: Path, tmp_path: Path) -> None:
    arguments = ["ingest", "F", "--store", str(tmp_path / "s"), "--source", str(source)]
    assert sensorium(*arguments).status == 0
    code = (
        "import sys\nfrom flows.cli.entry import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as exit: assert exit.code in (None, 0)\n"
        "slow = {'aiohttp', 'dask', 'pandas', 'prefect', 'pyarrow', 'torch', 'xarray', 'zarr'}\n"
        "sys.exit(' '.join(sorted(slow & set(sys.modules))) or None)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "already done" in process.stdout, process.stderr
    # What made a rerun take seconds to say that nothing is to be done.
    assert process.returncode == 0, process.stderr


def test_mirrors_are_tried_in_order(sensorium: Command, source: Path, tmp_path: Path) -> None:
    outcome = sensorium("ingest", "F", "--store", tmp_path / "s", "--source", tmp_path / "gone", source, "--json")
    assert outcome.status == 0
    assert json.loads(outcome.out)[0]["source"] == str(source / f"{F.name}.zip")


@pytest.mark.parametrize("mode", ["auto", "download"])
def test_archives_are_downloaded_where_they_cannot_or_shall_not_be_streamed(
    mode: str, sensorium: Command, source: Path, tmp_path: Path
) -> None:
    faults = [IgnoreRange()] if mode == "auto" else []
    with serve_directory(source, faults=faults) as server:
        options = ("--source", server.url, "--mode", mode, "--downloads", tmp_path / "d")
        assert sensorium("ingest", "F", "--store", tmp_path / "s", *options).status == 0
        url = server.url
    assert (tmp_path / "d" / f"{F.name}.zip").read_bytes() == (source / f"{F.name}.zip").read_bytes()
    assert open_session(str(tmp_path / "s"), "F").attrs["source"] == f"{url}/{F.name}.zip"


def test_streaming_alone_is_refused_by_a_server_without_ranges(
    sensorium: Command, source: Path, tmp_path: Path
) -> None:
    with serve_directory(source, faults=[IgnoreRange()]) as server:
        outcome = sensorium("ingest", "F", "--store", tmp_path / "s", "--source", server.url, "--mode", "stream")
    outcome.assert_refused("ignores byte ranges", "--mode download")


def test_a_session_that_fails_does_not_stop_the_others_and_is_told_in_the_status(
    sensorium: Command, source: Path, tmp_path: Path
) -> None:
    outcome = sensorium("ingest", "F", "G", "--store", tmp_path / "s", "--source", source)
    assert outcome.status == 2
    assert "converted" in outcome.out
    assert re.search(rf"sensorium: .*{find_session('G').name}\.zip: there is no such file", outcome.err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "compact"], ["another precision", "found exact", "expected compact"]),
        (["--precision", "sloppy"], ["sloppy", "exact64"]),
        (["--mode", "guess"], ["guess", "stream"]),
        (["--jobs", "0"], ["--jobs", "from 1 up"]),
        (["--dask", "nowhere"], ["no Dask scheduler answers here", "dask scheduler"]),
    ],
)
def test_options_that_cannot_be_followed_are_refused(
    options: list[str], words: list[str], sensorium: Command, source: Path, tmp_path: Path
) -> None:
    assert sensorium("ingest", "F", "--store", tmp_path / "s", "--source", source).status == 0
    sensorium("ingest", "F", "--store", tmp_path / "s", "--source", source, *options).assert_refused(*words)


def test_damage_is_found_and_repaired(sensorium: Command, source: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    assert sensorium("ingest", "F", "--store", store, "--source", source).status == 0
    assert sensorium("verify", store, "--source", source).status == 0
    block = store / F.name / "responses" / "c" / "1" / "0" / "0"
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)
    found = sensorium("verify", store, "F")
    assert found.status == 1
    assert "responses/c/1/0/0: the digest of its bytes differs" in found.err
    assert sensorium("ingest", "F", "--store", store, "--source", source, "--repair").status == 0
    assert sensorium("verify", store, "--source", source).status == 0


def test_old_versions_are_counted_and_verified_if_asked_for(sensorium: Command, source: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "s", tmp_path / "other"
    make_recording("F", ["train", "oracle", "oracle", "live_test_main"], seed=4).write(other)
    for archives in (source, other):
        assert sensorium("ingest", "F", "--store", store, "--source", archives).status == 0
    (store / F.name / "responses" / "c" / "1" / "0" / "0").unlink()
    current = sensorium("verify", store, "F")
    assert current.status == 0
    assert "1 old version of sessions is not looked at; --all-versions verifies it too" in current.err
    everything = sensorium("verify", store, "--all-versions")
    assert everything.status == 1
    assert f"session {F.name}, version 1: responses/c/1/0/0: missing" in everything.err
    assert f"nothing repairs an old version; `sensorium clean {store}` deletes it" in everything.err
    assert "not looked at" not in everything.err
    assert [one["old_version"] for one in json.loads(sensorium("verify", store, "--all-versions", "--json").out)] == [
        None,
        None,
        1,
    ]


def test_a_store_that_differs_from_the_archive_is_told(sensorium: Command, source: Path, tmp_path: Path) -> None:
    assert sensorium("ingest", "F", "--store", tmp_path / "s", "--source", source).status == 0
    other = tmp_path / "other"
    shutil.copytree(source, other)
    make_recording("F", ["train", "oracle", "oracle", "live_test_main"], seed=4).write(other)
    outcome = sensorium("verify", tmp_path / "s", "F", "--source", other)
    assert outcome.status == 1
    assert re.search(r"trial 0: responses differs in \d+ of 120 values", outcome.err)
