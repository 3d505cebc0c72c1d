"""Two processes that write the same run, predictions or submission into an object store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fixtures.command_line import run_command
from fixtures.object_store import ObjectStore
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.prediction import predict
from models.runs import load_run
from models.training import train
from sensorium_data.errors import LockedError, UnlockableError
from sensorium_data.files import RemoteObjects, open_objects
from sensorium_data.files.leases import Lease
from sensorium_data.predictions import open_predictions
from sensorium_data.submission import write_submission

pytestmark = pytest.mark.usefixtures("no_curves")

WHO = rf"found process {os.getpid()} on .*wait until it has finished"


@pytest.fixture
def url(s3: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"{s3.url}/{request.node.name}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store")
    tiers = {"train": 4, "oracle": 2, "live_test_main": 2, "final_test_main": 1}
    record_session(path, "F", n_by_tier=tiers)
    return str(path)


@pytest.fixture(scope="module")
def run(store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.training.training.draw_curves", lambda *_, **__: None)
        return train(tiny_config(max_epochs=1), store, None, tmp_path_factory.mktemp("runs")).run


def locks(url: str) -> list[str]:
    return [key for key in open_objects(url).keys() or () if ".partial/" in key and key.endswith(".lock")]


def take_over(url: str) -> None:
    """Let somebody else have the only lock, as after an outage."""
    (key,) = locks(url)
    objects = open_objects(url)
    objects.write(key, json.dumps({**json.loads(objects.read(key)), "owner": "x", "host": "other"}).encode())


def test_of_two_trainings_one_goes_on_and_the_other_says_who_has_the_run(
    url: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(max_epochs=2)
    refused = []

    def meanwhile(_: object) -> None:
        if not refused:
            # As on another machine, which has no copy that could be locked.
            with monkeypatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
                with pytest.raises(LockedError, match=f"another process is training this run: {WHO}"):
                    train(config, store, None, url)
            refused.append(locks(url))

    trained = train(config, store, None, url, on_epoch=meanwhile)
    assert refused == [[f".partial/{trained.run.rpartition('/')[2]}.lock"]]
    assert locks(url) == []
    # What is finished needs no lock.
    assert train(config, store, None, url).status == "already done"
    assert load_run(trained.run).metrics()


def test_a_training_that_lost_its_lock_sends_nothing_more(
    url: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "_is_over", lambda _: True)
    with pytest.raises(LockedError, match=r"the lock was lost: found process \d+ on other"):
        train(tiny_config(max_epochs=2), store, None, url, on_epoch=lambda _: take_over(url))
    assert not [key for key in open_objects(url).keys() or () if key.endswith("model.json")]


def test_of_two_predictions_one_goes_on_and_the_other_leaves_its_work(url: str, store: str, run: str) -> None:
    out, refused = f"{url}/predictions", []

    def meanwhile(*_: object) -> None:
        if not refused:
            with pytest.raises(LockedError, match=f"another process is writing these predictions: {WHO}"):
                predict([run], store, ["oracle"], out, device="cpu")
            refused.append(True)

    assert predict([run], store, ["oracle"], out, device="cpu", progress=meanwhile).status == "predicted"
    assert refused
    assert open_predictions(out, "F").sizes["trial"] == 2
    assert locks(url) == []
    assert predict([run], store, ["oracle"], out, device="cpu").status == "already done"


def test_a_writer_that_lost_its_lock_leaves_what_is_there_to_the_other(
    url: str, store: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{url}/predictions"
    monkeypatch.setattr(Lease, "_is_over", lambda _: True)
    written = []

    def lose(label: str, n_done: int, n_total: int, **_: object) -> None:
        written[:] = open_objects(out).keys() or ()
        if n_done == n_total:
            take_over(url)

    with pytest.raises(LockedError, match="the lock was lost"):
        predict([run], store, ["oracle"], out, device="cpu", progress=lose)
    left = set(open_objects(out).keys() or ())
    assert written
    assert left >= set(written)
    # Nobody takes it for whole.
    assert "zarr.json" not in left


def test_of_two_submissions_one_goes_on(
    url: str, store: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, out = str(tmp_path / "predictions"), f"{url}/submission"
    predict([run], store, ["live_test_main", "final_test_main"], predictions, device="cpu")
    refused = []

    def meanwhile(*_: object) -> None:
        if not refused:
            refused.append(
                run_command(capsys, "submit", predictions, "--store", store, "--track", "main", "--out", out)
            )

    assert write_submission(predictions, store, track="main", out=out, progress=meanwhile).status == "written"
    refused[0].assert_refused("another process is writing this submission", f"process {os.getpid()} on")
    assert locks(out) == []
    assert write_submission(predictions, store, track="main", out=out).status == "already done"


def test_a_store_that_cannot_be_locked_is_refused_unless_told_not_to_lock(
    url: str, store: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteObjects, "has_conditions", False)
    out = f"{url}/predictions"
    for begin in (
        lambda lock: predict([run], store, ["oracle"], out, device="cpu", lock=lock),
        lambda lock: train(tiny_config(max_epochs=1), store, None, f"{url}/runs", lock=lock),
    ):
        with pytest.raises(UnlockableError, match="add --no-lock"):
            begin(True)
        assert begin(False).status in ("predicted", "trained")
    assert locks(url) == []
