"""A process takes its share of the machine: the cores of its affinity, the memory of its control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sensorium_data import machine

V2_GROUP = "0::/slurm/job_7/step_0\n"
V1_GROUPS = "5:cpu,cpuacct:/job_7\n4:memory:/slurm/job_7\n"

# What a limited group, its parent and a container's only group look like, by kernel interface: files, limit, use.
GROUPS: dict[str, tuple[str, dict[str, str], int, int]] = {
    "its own group": (
        V2_GROUP,
        {
            "slurm/job_7/step_0/memory.max": "3000000000\n",
            "slurm/job_7/step_0/memory.current": "1200000000\n",
            "slurm/job_7/step_0/memory.stat": "anon 900000000\ninactive_file 200000000\n",
        },
        3_000_000_000,
        2_000_000_000,
    ),
    "the job's group above it": (
        V2_GROUP,
        {
            "slurm/job_7/step_0/memory.max": "max\n",
            "slurm/job_7/step_0/memory.current": "1\n",
            "slurm/job_7/memory.max": "2000000000\n",
            "slurm/job_7/memory.current": "500000000\n",
            "slurm/job_7/memory.stat": "inactive_file 0\n",
        },
        2_000_000_000,
        1_500_000_000,
    ),
    "a container that does not see the host's path": (
        V1_GROUPS,
        {
            "memory/memory.limit_in_bytes": "1000000000\n",
            "memory/memory.usage_in_bytes": "1100000000\n",
            "memory/memory.stat": "cache 5\ntotal_inactive_file 50000000\n",
        },
        1_000_000_000,
        0,
    ),
}


def pretend_control_groups(own: str, files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "own").write_text(own)
    monkeypatch.setattr(machine, "_CONTROL_GROUPS", folder / "groups")
    monkeypatch.setattr(machine, "_OWN_CONTROL_GROUPS", folder / "own")


@pytest.fixture
def control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> tuple[int, int]:
    """Pretend some control groups; return the limit and what is free of it."""
    own, files, limit, free = GROUPS[request.param]
    pretend_control_groups(own, files, tmp_path, monkeypatch)
    return limit, free


@pytest.mark.parametrize("control_groups", GROUPS, indirect=True)
def test_memory_is_what_the_control_groups_leave(control_groups: tuple[int, int]) -> None:
    assert (machine.memory_limit_bytes(), machine.free_memory_bytes()) == control_groups


def test_without_a_limit_memory_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_OWN_CONTROL_GROUPS", tmp_path / "not there")
    assert machine.memory_limit_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < machine.free_memory_bytes() <= machine.memory_limit_bytes()


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        (V2_GROUP, {"slurm/job_7/step_0/cpu.max": "150000 100000\n"}, 2),
        (V2_GROUP, {"slurm/job_7/step_0/cpu.max": "max 100000\n", "slurm/cpu.max": "300000 100000\n"}, 3),
        (V2_GROUP, {"slurm/job_7/step_0/cpu.max": "1000 100000\n"}, 1),
        (V1_GROUPS, {"cpu/job_7/cpu.cfs_quota_us": "200000\n", "cpu/job_7/cpu.cfs_period_us": "50000\n"}, 4),
        (V1_GROUPS, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 96),
        ("", {}, 96),
    ],
)
def test_cores_are_those_of_the_affinity_and_of_the_quotas(
    own: str, files: dict[str, str], quota: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_control_groups(own, files, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    assert machine.count_cores() == quota


@pytest.mark.parametrize("control_groups", ["its own group"], indirect=True)
def test_jobs_are_as_many_as_fit_into_memory(control_groups: tuple[int, int]) -> None:
    said: list[str] = []
    assert machine.bound_jobs(20, warn=said.append) == 20
    assert said == []
    assert machine.bound_jobs(96, warn=said.append) == 20
    (sentence,) = said
    assert "96 trials" in sentence
    assert "2.0 GB free" in sentence
    assert sentence.endswith("goes on with 20")


@pytest.mark.parametrize("control_groups", ["a container that does not see the host's path"], indirect=True)
def test_one_job_runs_however_little_memory_there_is(control_groups: tuple[int, int]) -> None:
    assert machine.bound_jobs(8) == 1


#: Reads a store on a node of 96 cores of which this job has one; prints the most threads that it ever had.
READS_A_STORE = """
import os, sys, threading
os.cpu_count = lambda: 96
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import zarr
from sensorium_data.files import LocalObjects
from sensorium_data.machine import count_cores
array = zarr.create_array(sys.argv[1], shape=(200,), chunks=(1,), dtype="i4")
array[...] = 1
zarr.core.sync.cleanup_resources()
opened = zarr.open_array(LocalObjects(sys.argv[1]).zarr_store(), mode="r")
assert opened[...].sum() == 200
print(count_cores(), sum(t.name.startswith("zarr_pool") for t in threading.enumerate()))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_job_on_a_large_node_starts_threads_for_its_own_cores_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READS_A_STORE, str(tmp_path / "array")]
    n_cores, n_threads = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert n_cores == 1
    assert 1 <= n_threads <= 5
