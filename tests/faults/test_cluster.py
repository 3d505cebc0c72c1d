"""A Dask cluster whose workers come late, or whose workers or scheduler die."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from distributed import Client

from fixtures.clusters import run_cluster
from sensorium_data.cluster import name_for_workers, open_cluster
from sensorium_data.errors import UsageError

pytestmark = pytest.mark.timeout(180)


def wait_while_it_dies(client: Client, process: subprocess.Popen[bytes]) -> None:
    """Wait for work that never ends, of a cluster a part of which is killed."""
    future = client.submit(time.sleep, 600, pure=False)
    process.kill()
    future.result()


@pytest.mark.slow
def test_a_cluster_that_starts_its_workers_late_is_waited_for(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with (
        run_cluster(tmp_path, n_workers=0) as cluster,
        open_cluster(cluster.address, progress=lambda *one, **_: told.append(one)) as client,
    ):
        future = client.submit(os.getpid, pure=False)
        while not told:
            time.sleep(0.1)
        cluster.start_worker(tmp_path)
        assert future.result(timeout=60) == cluster.workers[0].pid
        while len(told) < 2:
            time.sleep(0.1)
    assert told == [("wait for a Dask worker", 0, 1), ("wait for a Dask worker", 1, 1)]


@pytest.mark.slow
def test_a_cluster_without_workers_is_given_up(tmp_path: Path) -> None:
    with (
        run_cluster(tmp_path, n_workers=1) as cluster,
        pytest.raises(UsageError, match=r"the Dask cluster has had no worker for 4 s: .*run it again"),
        open_cluster(cluster.address, workers_timeout_s=4.0) as client,
    ):
        wait_while_it_dies(client, cluster.workers[0])


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_wait_with_one_error(tmp_path: Path) -> None:
    with (
        run_cluster(tmp_path, n_workers=1) as cluster,
        pytest.raises(UsageError, match=r"the Dask scheduler is gone: .*run it again"),
        open_cluster(cluster.address) as client,
    ):
        wait_while_it_dies(client, cluster.scheduler)


def test_an_error_of_the_work_itself_is_passed_on(tmp_path: Path) -> None:
    with (
        run_cluster(tmp_path, n_workers=1) as cluster,
        pytest.raises(RuntimeError, match="of the work"),
        open_cluster(cluster.address),
    ):
        raise RuntimeError("of the work")


def test_paths_are_whole_for_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_for_workers("store") == str(tmp_path / "store")
    assert name_for_workers("s3://lab/store") == "s3://lab/store"
