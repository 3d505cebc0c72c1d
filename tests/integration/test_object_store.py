"""Stores, runs and submissions on a real S3 server, slow, refusing and away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import numpy as np
import pytest

from fixtures.command_line import Outcome, run_command
from fixtures.lab import COMMAND
from fixtures.object_store import ObjectStore
from fixtures.submissions import Predicted, Recorded, make_zip
from flows.reporting.file_links import FileLinks
from sensorium_data.errors import StoreError
from sensorium_data.files import RemoteObjects, RetryPolicy, clean_up, hold_lease, leftovers, open_objects
from sensorium_data.ingest import convert_session
from sensorium_data.store import find_store_leftovers, open_session, open_store
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

pytestmark = pytest.mark.usefixtures("sound_s3")

TIERS = ["train", "oracle", "oracle", "live_test_main"]
PATIENT = RetryPolicy(n_attempts=8, backoff_s=0.2, backoff_max_s=1.0)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Path]:
    made = make_recording("F", TIERS, n_neurons=5)
    return made, made.write(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def store(s3: ObjectStore, recording: tuple[Recording, Path]) -> str:
    made, archive = recording
    convert_session(made.session, f"{s3.url}/store", source=str(archive))
    return f"{s3.url}/store"


def assert_one_line(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("sensorium: ")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0]


def test_a_session_on_an_object_store_is_as_in_the_archive(store: str, recording: tuple[Recording, Path]) -> None:
    made, _ = recording
    opened = open_session(store, "F")
    n_frames = int(opened.n_frames[0])
    stored = opened.responses.sel(trial=0)[:, :n_frames].values
    np.testing.assert_array_equal(stored, made.trials[0].responses[:, :n_frames].astype(np.float32))
    assert [session.alias for session in open_store(store)] == ["F"]


def test_a_store_says_when_its_objects_were_written(store: str) -> None:
    statuses = open_objects(store).statuses() or {}
    # Of this century, in seconds.
    assert all(946684800 < (status.modified_s or 0) < 4102444800 for status in statuses.values())
    assert statuses["zarr.json"].size_bytes == len(open_objects(store).read("zarr.json"))


@pytest.fixture
def unfinished(store: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The name of a session whose ingest was interrupted in the store, and the key of the lock that it left."""

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done:
            raise InterruptedError

    other = make_recording("G", TIERS, n_neurons=5)
    other.write(tmp_path)
    with pytest.raises(InterruptedError):
        convert_session(other.session, store, source=str(tmp_path), jobs=1, progress=stop)
    objects = open_objects(store)
    name = other.session.name
    lock = f".partial/{name}.lock"
    # As a killed process on another machine left it.
    claim = {"owner": "x", "host": "dead", "pid": 1, "since": "2026-01-01", "lease_s": 0.3, "process": "elsewhere"}
    objects.write(lock, json.dumps({**claim, "n_renewals": 2, "is_released": False}).encode())
    yield name, lock
    for place in (".partial", name):
        objects.child(place).delete_all()


def test_a_young_conversion_in_an_object_store_stays_and_the_lock_of_a_killed_process_goes(
    store: str, unfinished: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, lock = unfinished
    objects = open_objects(store)
    before = objects.keys()
    for arguments in (["--dry-run"], []):
        assert objects.keys() == before
        outcome = run_command(capsys, "clean", store, "--older-than", 0, "--json", *arguments)
        items = {item["place"]: item for item in json.loads(outcome.out)}
        assert items.keys() == {f"{store}/.partial/{lock.rpartition('/')[2]}", f"{store}/{name}"}
        assert "it stays for 1 day" in items[f"{store}/{name}"]["why"]
        assert items[f"{store}/{lock}"]["removed"] is True
        assert items[f"{store}/{lock}"]["kind"] == "lock"
    assert set(before or ()) - set(objects.keys() or ()) == {lock}


def test_an_old_conversion_in_an_object_store_is_deleted_and_named_once(
    store: str, unfinished: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = unfinished
    objects = open_objects(store)
    objects.write(".partial/notes.lock", b"mine")
    monkeypatch.setattr(leftovers, "time", SimpleNamespace(time=lambda: time.time() + 30 * 86400))
    # So that no path is broken.
    monkeypatch.setenv("COLUMNS", "300")
    outcome = run_command(capsys, "clean", store)
    assert f"{store}/{name}" in outcome.out
    assert [line for line in outcome.err.splitlines() if "did not make it" in line] == [
        f"{store}/.partial/notes.lock: not of the store, stays: this software did not make it"
    ]
    assert [key for key in objects.keys() or () if name in key or key.startswith(".partial")] == [".partial/notes.lock"]


def test_what_an_ingest_works_on_in_an_object_store_stays(
    store: str, unfinished: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, lock = unfinished
    objects = open_objects(store)
    assert isinstance(objects, RemoteObjects)
    monkeypatch.setattr(leftovers, "time", SimpleNamespace(time=lambda: time.time() + 30 * 86400))
    with hold_lease(objects, lock, "another ingest"):
        for dry_run in (True, False):
            items = clean_up(find_store_leftovers(store), dry_run=dry_run)
            assert {item.why for item in items} == {"an ingest is at work on the session", "somebody holds the lock"}
            assert not any(item.removed for item in items)
    assert any(key.startswith(f"{name}/") for key in objects.keys() or ())


def test_a_signed_link_opens_without_credentials(store: str) -> None:
    links = FileLinks(signed_s=60)
    shown = links.show(f"{store}/zarr.json")
    (link,) = links.signed
    assert f"([open]({link}) until " in shown
    with urlopen(link, timeout=30) as answer:  # noqa: S310 (loopback)
        assert answer.read() == open_objects(store).read("zarr.json")


@pytest.mark.slow
def test_refusals_are_waited_for(s3: ObjectStore, store: str) -> None:
    s3.n_refusals = 3
    assert open_objects(store).read("zarr.json")
    assert s3.n_refusals == 0


@pytest.mark.slow
def test_a_store_that_was_away_is_read_when_it_is_back(s3: ObjectStore, store: str) -> None:
    objects = RemoteObjects(store, PATIENT)
    expected = objects.read("zarr.json")
    s3.is_away = True
    back = threading.Timer(3, lambda: setattr(s3, "is_away", False))
    back.start()
    assert objects.read("zarr.json") == expected
    back.join()
    dataset = open_session(store, "F")
    s3.is_away = True
    back = threading.Timer(3, lambda: setattr(s3, "is_away", False))
    back.start()
    assert dataset.responses[0].values.shape[0] == 5
    back.join()


def test_a_mistyped_bucket_is_an_error_and_no_new_bucket(
    s3: ObjectStore, recording: tuple[Recording, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, archive = recording
    outcome = run_command(capsys, "ingest", "F", "--store", "s3://labb/store", "--source", archive)
    assert_one_line(outcome, "s3://labb/store/", "bucket does not exist", "check the name of the bucket")
    with pytest.raises(StoreError, match="check the name of the bucket"):
        open_objects("s3://labb/store").write("x", b"1")


def run_alone(patched: dict[str, str | None], *arguments: str) -> Outcome:
    """Run a command in a process of its own, with other variables: a client keeps what it found when it was made."""
    environment = {name: value for name, value in {**os.environ, **patched}.items() if value is not None}
    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_missing_credentials_are_one_line(store: str, tmp_path: Path) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    outcome = run_alone({**nobody, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}, "inspect", store)
    assert_one_line(outcome, store, "credentials", "set the store's credentials")


@pytest.mark.slow
def test_an_unreachable_endpoint_is_one_line() -> None:
    outcome = run_alone({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "inspect", "s3://lab/store")
    assert_one_line(outcome, "s3://lab/store", "127.0.0.1:9", "check the network and the server's address")


def test_an_object_is_read_in_one_request(s3: ObjectStore, store: str) -> None:
    objects = open_objects(store)
    objects.read("zarr.json")
    s3.requests.clear()
    objects.read("zarr.json")
    assert s3.requests == {"GET": 1}


@pytest.mark.slow
def test_machines_that_publish_at_once_lose_no_session(s3: ObjectStore, tmp_path: Path) -> None:
    """Sessions that the catalogue lacks, each ingested by a process of its own."""
    names = [f"dynamic3000{number}-1-1-Video-lab" for number in range(3)]
    for name in names:
        make_recording(name, TIERS[:2], n_neurons=2).write(tmp_path)
    s3.latency_s = 0.02
    command = [sys.executable, "-c", COMMAND, "ingest"]
    places = ["--store", f"{s3.url}/shared", "--source", str(tmp_path)]
    machines = [subprocess.Popen([*command, name, *places], stderr=subprocess.PIPE, text=True) for name in names]
    for machine in machines:
        _, said = machine.communicate(timeout=120)
        assert machine.returncode == 0, said
    assert [session.name for session in open_store(f"{s3.url}/shared")] == names


def test_an_update_loses_nothing_that_others_write_meanwhile(s3: ObjectStore) -> None:
    objects = RemoteObjects(f"{s3.url}/counter", PATIENT)
    seen = []

    def add_one(before: bytes | None) -> bytes:
        seen.append(before)
        if len(seen) in (1, 3):
            objects.write("n", str(int(before or 0) + 10).encode())
        return str(int(before or 0) + 1).encode()

    objects.update("n", add_one)
    objects.update("n", add_one)
    assert objects.read("n") == b"22"
    assert seen == [None, b"10", b"11", b"21"]


def test_submission_files_are_validated_where_they_lie(
    s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Recorded(tmp_path)
    path = make_zip(recorded, tmp_path)
    open_objects(f"{s3.url}/sub").upload(path, path.name)  # type: ignore[union-attr]
    url = f"{s3.url}/sub/{path.name}"
    here = run_command(capsys, "validate", path, "--store", recorded.store.url)
    assert here.status == 0
    assert run_command(capsys, "validate", url, "--store", recorded.store.url).out == here.out
    missing = run_command(capsys, "validate", f"{s3.url}/sub/other.zip", "--store", recorded.store.url)
    assert_one_line(missing, f"{s3.url}/sub/other.zip", "there is no such file")


def test_a_submission_and_a_benchmark_are_written_to_a_url_and_found_sound_there(
    s3: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted, url = Predicted(tmp_path), f"{s3.url}/written"
    base = ("--store", predicted.store, "--out")
    submit = ("submit", predicted.path, "--track", "main", *base, url)
    benchmark = ("benchmark", predicted.path, "--resamples", 100, *base, url)
    # A byte that is damaged on the way is sent again.
    s3.damages = "submission_main.zip"
    for command in (submit, benchmark):
        assert run_command(capsys, *command).status == 0
    assert s3.damages == ""
    place = open_objects(url)
    assert place.keys() == [
        *("benchmark.html", "benchmark.json"),
        *(f"submission_main.{ending}" for ending in ("json", "md", "sha256", "zip")),
    ]
    assert run_command(capsys, "validate", f"{url}/submission_main.zip", "--store", predicted.store).status == 0
    assert run_command(capsys, "verify", url).status == 0
    assert "already done" in run_command(capsys, *submit).out
    for command, name in ((submit, "submission_main.zip"), (benchmark, "benchmark.html")):
        sound = place.read(name)
        edited = sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:]
        place.write(name, edited)
        assert_one_line(run_command(capsys, *command), f"{url}/{name}", "move")
        assert place.read(name) == edited


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "store", "--report", "s3://lab/q.html"),
        ("score", "p", "--store", "store", "--parquet", "s3://lab/n.parquet"),
        ("score", "p", "--store", "store", "--picture", "s3://lab/s.png"),
        ("validate", "a.zip", "--store", "store", "--fix", "s3://lab/fixed"),
        ("simulate", "s3://lab/archives"),
        ("from-arrays", "s3://lab/arrays", "--store", "store", "--units", "raw", "--out", "p"),
    ],
    ids=lambda arguments: arguments[0] + arguments[-2],
)
def test_what_has_to_be_on_this_machine_says_so(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command(capsys, *arguments).assert_refused("a path on this machine", "s3:/")
    assert list(tmp_path.iterdir()) == []
