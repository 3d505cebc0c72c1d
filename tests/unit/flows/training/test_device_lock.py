"""Locks of devices: one holder at a time, and none once it is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flows.training.device_lock
from flows.training.device_lock import hold_devices
from sensorium_data.errors import UsageError

HOLDER = """
import sys, time
from pathlib import Path
from flows.training.device_lock import hold_devices
with hold_devices(["gpu-x"], "training a model", folder=Path(sys.argv[1]), write_line=print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of gpu-x."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_it_waits_for_the_holder_and_says_for_whom(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    lines: list[str] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holder.send_signal(signal.SIGKILL)
            holder.wait()

    monkeypatch.setattr(flows.training.device_lock.time, "sleep", sleep)
    with hold_devices(["gpu-x"], "predicting", folder=tmp_path, write_line=lines.append):
        # It was taken while the other one lived, and free as soon as it was killed.
        assert len(waits) == 3
        assert f"process {os.getpid()}" in (tmp_path / "sensorium-gpu-x.lock").read_text()
    (line,) = lines
    assert "gpu-x" in line
    assert f"process {holder.pid}" in line
    assert "training a model" in line


def test_another_device_is_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with hold_devices(["gpu-y"], "training", folder=tmp_path, write_line=pytest.fail) as descriptors:
        assert len(descriptors) == 1


def test_it_is_free_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(ZeroDivisionError),
            hold_devices(["gpu-b", "gpu-a"], "training", folder=tmp_path, write_line=pytest.fail),
        ):
            raise ZeroDivisionError


def test_no_device_needs_no_file(tmp_path: Path) -> None:
    with hold_devices([], "training", folder=tmp_path / "nowhere", write_line=pytest.fail) as descriptors:
        assert descriptors == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"nowhere.*SENSORIUM_LOCKS"),
        hold_devices(["gpu-x"], "training", folder=tmp_path / "nowhere", write_line=pytest.fail),
    ):
        pass
