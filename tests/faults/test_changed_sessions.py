"""Sessions that somebody changed in a store, or took away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fixtures.changed_stores import TIERS, A, F, find_problems
from fixtures.tiny_training import tiny_config
from models.training import train
from sensorium_data.errors import StoreError
from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.movies import link_movies
from sensorium_data.store import describe_store, open_session, open_store, verify_root


def test_a_session_without_its_metadata_is_damaged_and_not_gone(sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    (store / A.name / "zarr.json").unlink()
    assert [session.alias for session in open_store(store)] == ["A", "F"]
    told = rf"session A .*{A.name}/zarr\.json: the store is damaged: found no such file; .*ingest A .*A?.*--repair"
    for use in (
        lambda: open_session(str(store), "A"),
        lambda: train(tiny_config(), str(store), None, tmp_path / "runs"),
        lambda: convert_session(A, str(store), source=archives),
        lambda: link_movies(str(store)),
    ):
        with pytest.raises(StoreError, match=told):
            use()
    assert any(f"{A.name}/zarr.json: the store is damaged" in problem for problem in find_problems(store))
    convert_session(A, str(store), source=archives, repairs=True)
    assert open_store(store).group("A") == f"{A.name}.v2"
    assert open_session(str(store), "A").responses.dtype == open_session(str(sound), "A").responses.dtype
    link_movies(str(store))
    assert find_problems(store) == []


def test_a_damaged_session_keeps_no_other_from_being_repaired_and_stays_listed(sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    (store / f"{F.name}.v2" / "zarr.json").write_text("{}")
    (store / "zarr.json").write_bytes(
        (store / "zarr.json").read_bytes().replace(b'"units": "0-255"', b'"units": "x"', 1)
    )
    convert_session(A, str(store), source=archives, repairs=True)
    assert json.loads((store / "zarr.json").read_text())["attributes"]["sessions"] == [A.name, F.name]
    assert any(f"{F.name}.v2" in problem for problem in find_problems(store))
    convert_session(F, str(store), source=archives, repairs=True)
    assert find_problems(store) == []


def test_a_session_that_was_taken_away_is_found_missing(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.rmtree(store / A.name)
    report = verify_root(open_store(store))
    assert f"{A.name}: the root lists it, but it is not there" in report.problems
    assert report.remedy.startswith(f"`sensorium ingest A --store {store} --source {sound.parent / 'archives'}")
    archives = str(sound.parent / "archives")
    # What is done with the others does not make it forgotten.
    convert_session(F, str(store), source=archives, repairs=True)
    assert f"{A.name}: the root lists it, but it is not there" in verify_root(open_store(store)).problems
    for use in (lambda: train(tiny_config(), str(store), None, tmp_path / "runs"), lambda: describe_store(str(store))):
        with pytest.raises(StoreError, match=r"session A .*a session that the store lists is not there: found F; put"):
            use()
    assert open_session(str(store), "F").sizes["trial"] == len(TIERS)
    convert_session(A, str(store), source=archives)
    link_movies(str(store))
    assert find_problems(store) == []


@pytest.mark.parametrize("lost", [("zarr.json", "ledger.json"), ("videos/zarr.json",), ("videos",)])
def test_a_session_that_lost_metadata_is_repaired(lost: tuple[str, ...], sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    for name in lost:
        path = store / A.name / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert find_problems(store)
    convert_session(A, str(store), source=archives, repairs=True)
    link_movies(str(store))
    assert find_problems(store) == []


@pytest.mark.parametrize(("name", "value"), [("precision", "exacu"), ("precision", 3), ("frame_size", "x")])
def test_a_session_with_changed_attributes_is_repaired(name: str, value: object, sound: Path, tmp_path: Path) -> None:
    store, archives = shutil.copytree(sound, tmp_path / "store"), str(sound.parent / "archives")
    path = store / A.name / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"] |= {name: value, "session": F.name}
    path.write_text(json.dumps(metadata))
    convert_session(A, str(store), source=archives, repairs=True)
    link_movies(str(store))
    assert find_problems(store) == []


def test_an_interrupted_verification_goes_on_and_reads_again_what_was_written_since(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = str(shutil.copytree(sound, tmp_path / "store"))

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if n_done > n_total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_session(store, "A", jobs=1, progress=stop, resumes=True)
    damaged = next(path for path in sorted(Path(store, A.name).rglob("c/0")) if path.is_file())
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    report = verify_session(store, "A", jobs=1, resumes=True)
    assert 0 < report.n_resumed < report.n_objects
    assert [problem.partition(":")[0] for problem in report.problems] == [
        damaged.relative_to(Path(store, A.name)).as_posix()
    ]
    # It is complete: the next one reads everything.
    assert verify_session(store, "A", jobs=1, resumes=True).n_resumed == 0


def test_a_current_version_that_is_lost_is_told_as_such(sound: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sound, tmp_path / "store")
    shutil.rmtree(store / f"{F.name}.v2")
    told = rf"store/{F.name}\.v2: the session's current version is not there: .*; put its folder back, or "
    with pytest.raises(StoreError, match=told):
        open_session(str(store), "F")
    with pytest.raises(StoreError, match=told):
        link_movies(str(store))
