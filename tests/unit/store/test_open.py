from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray as xr

from fixtures.session_stores import write_ledger
from fixtures.stores import read_files
from fixtures.tables import each_once
from sensorium_data.errors import StoreError, UnknownNameError
from sensorium_data.files import LocalObjects
from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import find_session
from sensorium_data.store import (
    Store,
    describe_session,
    describe_store,
    open_session,
    open_statistics,
    open_store,
    stored_sessions,
)
from sensorium_data.store.open import open_sessions
from sensorium_data.testing import Recording, serve_directory
from sensorium_data.testing.recordings import make_recording

F = find_session("F")


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    return {
        "A": make_recording("A", ["train", "none", "oracle", "oracle"], movies={2: 1, 3: 1}),
        "F": make_recording("F", ["train", "oracle", "oracle", "live_test_main", "train"], n_frames={1: 18, 2: 18}),
    }


@pytest.fixture(scope="module")
def shared_store(recordings: dict[str, Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions A and F. Not to be changed."""
    folder = tmp_path_factory.mktemp("store")
    for recording in recordings.values():
        recording.write(folder / "archives")
        convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return folder / "store"


@pytest.fixture
def store(recordings: dict[str, Recording], tmp_path: Path) -> Path:
    """A store of one's own with session F."""
    recordings["F"].write(tmp_path / "archives")
    convert_session(F, str(tmp_path / "store"), source=str(tmp_path / "archives"))
    return tmp_path / "store"


# Opening


@pytest.mark.parametrize("name", ["F", "f", F.name, F.scan])
def test_a_session_opens_by_alias_and_by_name(name: str, shared_store: Path) -> None:
    assert open_session(str(shared_store), name).attrs["session"] == F.name


def test_coordinates_are_in_memory_and_variables_are_lazy_a_chunk_a_trial(shared_store: Path) -> None:
    dataset = open_session(str(shared_store), "F")
    for name, coordinate in dataset.coords.items():
        assert isinstance(coordinate.variable._data, np.ndarray) or name in dataset.dims
        assert not dask.is_dask_collection(coordinate)
    for name, variable in dataset.data_vars.items():
        assert isinstance(variable.data, dask.array.Array)
        assert variable.chunks[0] == ((1,) * 5 if name in ("videos", "responses") else (5,))


def test_trial_labels_are_coordinates_that_select(shared_store: Path) -> None:
    dataset = open_session(str(shared_store), "F")
    assert set(dataset.coords) == {
        "trial", "tier", "n_frames", "movie", "movie_group", "stimulus", "responses_withheld", "valid", "presentation",
        "onset", "trial_idx", "time", "neuron", "x", "y", "z", "behavior_channel", "eye_axis",
    }  # fmt: skip
    assert dataset.sel(trial=dataset.tier == "oracle").trial.values.tolist() == [1, 2]
    assert dataset.tier.dtype.kind == dataset.eye_axis.dtype.kind == "U"
    assert np.isin(dataset.tier.values, ["train"]).sum() == 2
    assert dataset.behavior.sel(behavior_channel="running_speed").shape == (5, 24)


def test_every_array_says_what_it_is_and_in_which_units(shared_store: Path) -> None:
    dataset = open_session(str(shared_store), "F")
    for array in (*dataset.data_vars.values(), *dataset.coords.values()):
        assert array.attrs["long_name"]
    assert dataset.time.attrs["units"] == "s"
    assert dataset.x.attrs["units"] == "micrometer"


@pytest.mark.parametrize(
    ("opened", "over_http"),
    each_once(
        {
            "session": lambda root: xr.open_zarr(f"{root}/{F.name}"),
            "group": lambda root: xr.open_zarr(root, group=F.name),
            "tree": lambda root: xr.open_datatree(root, engine="zarr")[F.name].to_dataset(inherit=False),
            "ours": lambda root: open_sessions(str(root))[F.name].to_dataset(inherit=False),
        },
        {"local": False, "http": True},
    ),
)
def test_xarray_alone_opens_the_same_session(
    opened: Callable[[object], xr.Dataset], over_http: bool, shared_store: Path
) -> None:
    expected = open_session(str(shared_store), "F").load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if over_http:
            with serve_directory(shared_store) as server:
                found = opened(server.url).load()
        else:
            found = opened(shared_store).load()
    # What a session is called across sessions stands beside it, and ours add it.
    alone = expected.drop_vars("movie_group")
    xr.testing.assert_equal(found, expected if "movie_group" in found.coords else alone)
    # Our readers give lists as JSON text, which xarray can write back.
    notes = found.attrs["notes"]
    assert {**found.attrs, "notes": notes if isinstance(notes, str) else json.dumps(notes)} == expected.attrs


def test_a_tree_holds_every_session_and_its_statistics(shared_store: Path, recordings: dict[str, Recording]) -> None:
    tree = open_sessions(str(shared_store))
    assert list(tree.children) == [find_session("A").name, F.name]
    std = tree[f"{F.name}/statistics"].responses.sel(statistic="std")
    np.testing.assert_array_equal(std, recordings["F"].statistics["responses", "std"].astype(np.float32))
    assert list(open_sessions(str(shared_store), ["F"]).children) == [F.name]


def test_a_store_is_read_over_http_without_listing(shared_store: Path) -> None:
    with serve_directory(shared_store) as server:
        assert [session.alias for session in stored_sessions(server.url)] == ["A", "F"]
        remote = open_session(server.url, "F")
        n_requests = len(server.requests)
        remote.responses.sel(trial=1).load()
        assert len(server.requests) - n_requests <= 4
        xr.testing.assert_identical(remote.load(), open_session(str(shared_store), "F").load())
        xr.testing.assert_identical(
            open_statistics(server.url, "A").load(), open_statistics(str(shared_store), "A").load()
        )
        assert open_store(server.url).digest("F") == open_store(str(shared_store)).digest("F")
        assert verify_session(server.url, "F").passed


def test_reading_leaves_the_store_as_it_is(shared_store: Path) -> None:
    before = read_files(shared_store)
    open_sessions(str(shared_store)).load()
    verify_session(str(shared_store), "F")
    assert read_files(shared_store) == before


def test_neighbouring_sessions_do_not_change_a_sessions_files(store: Path, shared_store: Path) -> None:
    own, shared = read_files(store / F.name), read_files(shared_store / F.name)
    # The archives lie in different folders, which the group's attributes say.
    differing = {key for key in own if own[key] != shared.get(key)}
    assert own.keys() == shared.keys()
    assert differing <= {"zarr.json", "ledger.json"}


# What cannot be opened


def read_digest(store: str, session: str) -> str:
    return open_store(store).digest(session)


@pytest.mark.parametrize("open_it", [open_session, open_statistics, read_digest, verify_session, describe_session])
class TestRefusals:
    def test_a_missing_path(self, open_it: Callable[[str, str], object], tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"nowhere: no such folder; give the root of a store"):
            open_it(str(tmp_path / "nowhere"), "F")

    def test_a_folder_that_is_no_store(self, open_it: Callable[[str, str], object], tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"no session store here: expected a zarr\.json"):
            open_it(str(tmp_path), "F")

    def test_a_file(self, open_it: Callable[[str, str], object], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="not a folder"):
            open_it(str(tmp_path / "file"), "F")

    def test_a_session_that_is_not_there(self, open_it: Callable[[str, str], object], shared_store: Path) -> None:
        with pytest.raises(StoreError, match=r"session J .*not in the store: found A, F; run `sensorium ingest J"):
            open_it(str(shared_store), "J")

    def test_a_name_that_no_session_has(self, open_it: Callable[[str, str], object], shared_store: Path) -> None:
        with pytest.raises(UnknownNameError):
            open_it(str(shared_store), "Z")

    def test_damaged_metadata(self, open_it: Callable[[str, str], object], store: Path) -> None:
        path = store / F.name / "zarr.json"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(StoreError, match=r"session F .*damaged.*unreadable metadata"):
            open_it(str(store), "F")

    def test_nobody_answers(self, open_it: Callable[[str, str], object]) -> None:
        with pytest.raises(StoreError, match="cannot be read"):
            open_it("http://127.0.0.1:9", "F")

    def test_a_server_without_a_store(self, open_it: Callable[[str, str], object], tmp_path: Path) -> None:
        with (
            serve_directory(tmp_path) as server,
            pytest.raises(StoreError, match=r"no session store here: expected a zarr\.json"),
        ):
            open_it(server.url, "F")

    def test_a_url_that_nothing_serves(self, open_it: Callable[[str, str], object]) -> None:
        with pytest.raises(StoreError, match="URLs of this kind are not supported"):
            open_it("carrier-pigeon://loft/store", "F")


def test_another_schema_version_is_named_with_what_to_do(store: Path) -> None:
    path = store / F.name / "zarr.json"
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 9'))
    with pytest.raises(StoreError, match=r"another schema version: found 9, expected 2 or 3; ingest it again"):
        open_session(str(store), "F")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("responses/c/2/0/0", r"no responses/c/2/0/0, expected an object of [\d,]+ bytes"),
        ("neuron/c/0", "no neuron/c/0"),
        ("ledger.json", "no ledger"),
    ],
)
def test_a_missing_object_is_noticed_before_it_reads_as_nothing(key: str, found: str, store: Path) -> None:
    (store / F.name / key).unlink()
    with pytest.raises(StoreError, match=rf"session F .*damaged: found {found}.*sensorium verify"):
        open_session(str(store), "F")


def test_a_shortened_object_is_noticed(store: Path) -> None:
    path = store / F.name / "videos" / "c" / "0" / "0" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"found videos/c/0/0/0/0 of [\d,]+ bytes, expected an object of "):
        open_session(str(store), "F")


def test_a_group_without_an_array_is_damaged(store: Path) -> None:
    path = store / F.name / "zarr.json"
    metadata = json.loads(path.read_text())
    del metadata["consolidated_metadata"]["metadata"]["responses"]
    data = json.dumps(metadata).encode()
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{F.name}/zarr.json: the store is damaged: found {len(data)} bytes"):
        open_session(str(store), "F")
    (store / F.name / "ledger.json").unlink()
    write_ledger(store / F.name)
    with pytest.raises(StoreError, match="damaged: found no array responses"):
        open_session(str(store), "F")


# Listing and describing


def test_stored_sessions_are_those_published_in_catalogue_order(shared_store: Path) -> None:
    assert [session.alias for session in stored_sessions(str(shared_store))] == ["A", "F"]


def test_a_copied_session_folder_needs_no_root(store: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (store / F.name).rename(tmp_path / "copy" / F.name)
    assert stored_sessions(str(tmp_path / "copy")) == (F,)
    assert open_session(str(tmp_path / "copy"), "F").sizes["trial"] == 5


def test_a_store_is_described_a_row_a_session(shared_store: Path) -> None:
    table = describe_store(str(shared_store))
    assert table.alias.tolist() == ["A", "F"]
    assert table.trials.tolist() == [3, 5]
    assert table.neurons.tolist() == [5, 5]
    assert table.frames.tolist() == [24, 24]
    for name, size_bytes in zip(table.session, table.size_bytes, strict=True):
        files = read_files(shared_store / name)
        assert size_bytes == sum(len(data) for key, data in files.items() if key != "ledger.json")
    assert table.source.str.endswith(".zip").all()


def test_a_session_is_described_a_row_a_tier(shared_store: Path) -> None:
    table = describe_session(str(shared_store), "F").set_index("tier")
    assert table.trials.to_dict() == {"train": 2, "oracle": 2, "live_test_main": 1}
    assert table.frames.to_dict() == {"train": "20", "oracle": "18", "live_test_main": "20"}
    assert table.withheld.to_dict() == {"train": 0, "oracle": 0, "live_test_main": 1}
    assert describe_session(str(shared_store), "A").set_index("tier").movies["oracle"] == 1


# Verifying


def test_a_sound_store_has_no_problems(shared_store: Path) -> None:
    report = verify_session(str(shared_store), "F")
    assert report.passed
    assert report.problems == ()
    assert report.n_objects == len(read_files(shared_store / F.name)) - 1


def test_every_damaged_missing_and_unknown_object_is_named(store: Path) -> None:
    group = store / F.name
    flipped = group / "responses" / "c" / "1" / "0" / "0"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (group / "tier" / "c" / "0").unlink()
    longer = group / "statistics" / "zarr.json"
    longer.write_bytes(longer.read_bytes() + b" ")
    (group / "extra").write_text("")
    problems = verify_session(str(store), "F").problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "responses/c/1/0/0", "statistics/zarr.json", "tier/c/0", "extra",
    ]  # fmt: skip
    assert [
        part in problem for part, problem in zip(("digest", "bytes in", "missing", "not in"), problems, strict=True)
    ]


def test_verification_tells_its_progress(shared_store: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    report = verify_session(str(shared_store), "F", progress=lambda *call, **_: calls.append(call))
    assert calls[-1] == ("verify F", report.n_objects, report.n_objects)


def test_every_bit_of_a_session_is_covered_by_its_digest(store: Path) -> None:
    digest = open_store(str(store)).digest("F")
    ledger = store / F.name / "ledger.json"
    content = json.loads(ledger.read_text())
    key = "responses/c/0/0/0"
    content["objects"][key][1] = "0" * 64
    ledger.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"the ledger is damaged: found its bytes are not those that were written"):
        open_store(str(store)).digest("F")
    # As an earlier version wrote it, without a digest of its own.
    del content["digest"]
    ledger.write_text(json.dumps(content))
    assert open_store(str(store)).digest("F") != digest


# A store as a value


def test_a_store_offers_what_the_short_cuts_do(shared_store: Path) -> None:
    store = open_store(str(shared_store))
    assert store.sessions == stored_sessions(str(shared_store)) == tuple(store)
    assert len(store) == len(store.sessions)
    xr.testing.assert_identical(store["F"], open_session(str(shared_store), "F"))
    xr.testing.assert_identical(store[store.sessions[0]], open_session(str(shared_store), store.sessions[0].name))
    xr.testing.assert_identical(store.statistics("F"), open_statistics(str(shared_store), "F"))
    assert store.tree().identical(open_sessions(str(shared_store)))
    assert store.digest("F") == store.ledger("F").content_digest
    assert "F" in store
    assert "J" not in store
    assert "nobody" not in store
    assert repr(store) == f"<Store {shared_store}: {', '.join(session.alias for session in store)}>"


def test_a_store_is_returned_as_it_is(shared_store: Path) -> None:
    store = open_store(shared_store)
    assert open_store(store) is store


def test_what_is_done_to_an_opened_session_does_not_change_the_store(shared_store: Path) -> None:
    store = open_store(shared_store)
    opened = store["F"]
    opened.attrs["session"] = "mine"
    opened["tier"] = ("trial", ["mine"] * opened.sizes["trial"])
    for unlinked in (store["F"], store.as_stored("F")):
        unlinked.x.values[:] = 0
        unlinked.valid.values[:] = False
        unlinked.movie.values[:] = "mine"
    with pytest.raises((TypeError, AttributeError)):
        store.ledger("F").objects.clear()  # type: ignore[attr-defined]
    with pytest.raises((TypeError, AttributeError)):
        store.versions["F"] = "mine"  # type: ignore[index]
    xr.testing.assert_identical(store["F"], open_session(shared_store, "F"))


def test_a_store_crosses_to_another_process_as_its_url_and_versions(
    shared_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(shared_store.parent)
    store = open_store(shared_store.name)
    digest = store.digest("F")
    data = pickle.dumps(store)
    assert len(data) < 3000
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(data)  # noqa: S301 - its own bytes
    assert copy.sessions == store.sessions
    assert copy.digest("F") == digest


def test_a_store_stays_as_it_was_when_it_was_opened(store: Path, recordings: dict[str, Recording]) -> None:
    opened, digest = open_store(store), open_store(store).digest("F")
    changed = recordings["F"].with_trial(1, behavior=recordings["F"].trials[1].behavior + 1)
    changed.write(store.parent / "archives")
    assert convert_session(F, str(store), source=str(store.parent / "archives")).status == "updated"
    recordings["A"].write(store.parent / "archives")
    convert_session(recordings["A"].session, str(store), source=str(store.parent / "archives"))
    assert [session.alias for session in opened] == ["F"]
    with pytest.raises(StoreError, match="the session is not in the store"):
        opened["A"]
    for before in (opened, pickle.loads(pickle.dumps(opened))):  # noqa: S301 - its own bytes
        assert before.digest("F") == digest
    after = open_store(store)
    assert [session.alias for session in after] == ["A", "F"]
    assert after.digest("F") != digest


def test_a_login_is_left_out_of_the_repr(shared_store: Path) -> None:
    class Remote(LocalObjects):
        url = "http://lab:secret@host/store"

    assert repr(Store(Remote(shared_store))) == "<Store http://…@host/store: A, F>"


def test_sessions_are_named_by_themselves_too(shared_store: Path) -> None:
    store = open_store(shared_store)
    for session in store:
        xr.testing.assert_identical(open_session(store, session), store[session.alias])
    assert len(store.tree(store.sessions).children) == 2
    with pytest.raises(UnknownNameError, match="no session's name: found 3"):
        store[3]  # type: ignore[index]


@pytest.mark.parametrize("open_it", [open_store, open_sessions, describe_store])
def test_a_sessions_own_folder_is_no_store(open_it: Callable[[str], object], shared_store: Path) -> None:
    with pytest.raises(StoreError, match=rf"this is a session's own folder, no store.*give {shared_store}$"):
        open_it(str(shared_store / F.name))
    with pytest.raises(StoreError, match="no session store here"):
        open_it(str(shared_store / F.name / "videos"))


def test_several_threads_read_the_root_once(shared_store: Path) -> None:
    with serve_directory(shared_store) as server:
        store = open_store(server.url)
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(lambda _: store.digest("F"), range(8)))) == 1
        paths = [request.path for request in server.requests]
    assert [paths.count(f"/{name}") for name in ("zarr.json", "versions.json")] == [1, 1]
    assert paths.count(f"/{store.group('F')}/ledger.json") == 1


def test_a_store_at_a_relative_path_stays_readable_elsewhere(
    shared_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = open_session(shared_store, "F").responses[0].values
    monkeypatch.chdir(shared_store.parent)
    store, session = open_store(shared_store.name), open_session(shared_store.name, "F")
    tree = open_sessions(shared_store.name)
    monkeypatch.chdir(tmp_path)
    for responses in (session.responses, store["F"].responses, tree["F"].responses):
        np.testing.assert_array_equal(responses[0].values, expected)
    assert store.statistics("F").sizes["neuron"] == len(expected)
    # It is called what the user called it.
    assert store.url == shared_store.name
