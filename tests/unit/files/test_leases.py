from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fixtures.object_store import ObjectStore
from sensorium_data.errors import LockedError, StoreError
from sensorium_data.files import RemoteObjects, RetryPolicy, hold_lease, leases

PROBLEM = "another process is at work"


@pytest.fixture
def objects(s3: ObjectStore, request: pytest.FixtureRequest) -> Iterator[RemoteObjects]:
    yield RemoteObjects(f"{s3.url}/{request.node.name}", RetryPolicy(n_attempts=2, backoff_s=0.01))
    s3.behave()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of these tests be of machines that cannot see each other."""
    monkeypatch.setattr(leases, "_identify_process", lambda pid: None)


def claim(objects: RemoteObjects) -> dict[str, object]:
    found: dict[str, object] = json.loads(objects.read("lock"))
    return found


def abandon(objects: RemoteObjects, **changes: object) -> None:
    """Leave a lock that nobody renews."""
    with hold_lease(objects, "lock", PROBLEM):
        data = {**claim(objects), "owner": "gone", "host": "dead", **changes}
    objects.write("lock", json.dumps(data).encode())


def test_a_lock_says_who_holds_it_and_is_gone_when_it_is_released(objects: RemoteObjects) -> None:
    with hold_lease(objects, "lock", PROBLEM) as lease:
        lease.require()
        assert {"host", "pid", "since"} <= claim(objects).keys()
    assert objects.keys() == []


def test_a_lock_that_is_renewed_is_refused_whatever_its_holders_clock_says(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    told: list[str] = []
    with hold_lease(objects, "lock", PROBLEM) as lease:
        with (
            pytest.raises(LockedError, match=rf"lock: {PROBLEM}: found process \d+ on .*; wait until it has finished"),
            hold_lease(objects, "lock", PROBLEM, on_wait=told.append),
        ):
            pass
        # It was watched until it was renewed.
        assert told
        assert int(str(claim(objects)["n_renewals"])) >= 1
        lease.require()


@pytest.mark.parametrize("since", ["1970-01-01 00:00:00 UTC", "2999-01-01 00:00:00 UTC"])
def test_a_lock_that_nobody_renews_is_taken_when_its_lease_was_watched_to_its_end(
    objects: RemoteObjects, since: str
) -> None:
    abandon(objects, since=since, lease_s=0.5)
    told: list[str] = []
    begun = time.monotonic()
    with hold_lease(objects, "lock", PROBLEM, on_wait=told.append):
        assert time.monotonic() - begun >= 0.5
        assert claim(objects)["host"] != "dead"
    assert set(told) == {f"process {os.getpid()} on dead, since {since}"}
    assert objects.keys() == []


def test_a_lock_that_cannot_be_read_is_taken_after_a_lease(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    objects.write("lock", b"\xff no JSON")
    with hold_lease(objects, "lock", PROBLEM):
        pass
    assert objects.keys() == []


def test_a_wait_can_be_ended(objects: RemoteObjects) -> None:
    abandon(objects)

    def end(holder: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hold_lease(objects, "lock", PROBLEM, on_wait=end):
        pass
    assert claim(objects)["host"] == "dead"


def test_of_many_that_want_an_abandoned_lock_one_gets_it(objects: RemoteObjects) -> None:
    abandon(objects, lease_s=0.3)
    outcomes: list[str] = []
    ready = threading.Barrier(4)

    def take() -> None:
        ready.wait()
        try:
            with hold_lease(objects, "lock", PROBLEM):
                outcomes.append("held")
                ended.wait(60)
        except LockedError:
            outcomes.append("refused")
        if outcomes.count("refused") == 3:
            ended.set()

    ended = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "LEASE_S", 1.0)
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


def test_an_outage_loses_no_lock(objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.2)
    write_if, failures = RemoteObjects.write_if, []

    def fail(self: RemoteObjects, key: str, data: bytes, tag: str | None) -> str | None:
        if len(failures) < 6:
            failures.append(tag)
            raise StoreError("the store is away")
        return write_if(self, key, data, tag)

    with hold_lease(objects, "lock", PROBLEM) as lease:
        monkeypatch.setattr(RemoteObjects, "write_if", fail)
        while "n_renewals" not in claim(objects) or claim(objects)["n_renewals"] == 0:
            time.sleep(0.02)
        assert len(failures) == 6
        lease.require()
    assert objects.keys() == []


@pytest.mark.parametrize("how", ["taken", "deleted"])
def test_a_lock_that_somebody_else_took_is_lost_and_left_to_them(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    with ExitStack() as stack:
        lease = stack.enter_context(hold_lease(objects, "lock", PROBLEM))
        theirs = json.dumps({**claim(objects), "owner": "x", "host": "other"}).encode()
        if how == "taken":
            objects.write("lock", theirs)
        else:
            objects.delete("lock")
        while True:
            try:
                lease.require()
            except LockedError as error:
                message = str(error)
                break
            time.sleep(0.05)
    assert ("on other" if how == "taken" else "somebody has deleted it") in message
    assert (objects.keys() or []) == (["lock"] if how == "taken" else [])


def test_without_the_right_to_delete_a_lock_is_released_all_the_same(s3: ObjectStore, objects: RemoteObjects) -> None:
    s3.refuses_deletions = True
    told: list[str] = []
    for _ in range(2):
        with hold_lease(objects, "lock", PROBLEM, on_wait=told.append):
            pass
    assert claim(objects)["is_released"]
    assert told == []


def test_a_store_that_ignores_conditions_is_refused(
    s3: ObjectStore, objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_heeding", type(leases._heeding)())
    s3.ignores_conditions = True
    with (
        pytest.raises(StoreError, match=r"does not write under conditions.*--no-lock"),
        hold_lease(objects, "lock", ""),
    ):
        pass
    assert objects.keys() == []
