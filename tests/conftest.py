"""Settings every test shares."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from fixtures.downloads import origin, small_segments, sound_server, target  # noqa: F401 (fixtures)
from fixtures.object_store import s3, sound_s3  # noqa: F401 (fixtures)
from fixtures.once import made_once
from fixtures.simulation import SIMULATED, SIZE
from sensorium_data.simulation import simulate
from sensorium_data.submission import parquet_reader

# As the command line does, before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The test processes already use every core, and models this small are slower with more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Of the hundreds of processes that import the project, each would compile it for itself, which takes half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Shells ignore Ctrl-C on behalf of what they run in the background, and tests' processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test writes need not outlive a power cut, and the conversion of a small session waits for the disk most of its
# time. Tests of what is synchronized replace this once more.
os.fsync = os.fstat  # type: ignore[assignment]

# Deleting a file takes milliseconds on some disks, and the tests delete tens of thousands.
MEMORY_DISK = Path("/dev/shm")  # noqa: S108
ENOUGH_MEMORY_BYTES = 8 << 30
if MEMORY_DISK.is_dir():
    free_bytes = min(shutil.disk_usage(MEMORY_DISK).free, psutil.virtual_memory().available)
    if free_bytes > ENOUGH_MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))

#: Files whose tests use the fixture ``prefect_server``, which takes long to start.
WITH_PREFECT_SERVER = {f"tests/integration/test_{name}.py" for name in ("flows", "score_flows", "submit_flow")}

hypothesis.settings.register_profile("default", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that wait for servers come first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("flows") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests without looking for garbage, which takes a quarter of that time and finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        # Nor is what was imported looked through again.
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests in one process, and so those of all files that share a Prefect server."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = super()._split_scope(nodeid)
            return "prefect_server" if path in WITH_PREFECT_SERVER else path

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    for name in os.environ:
        if name.startswith(("SENSORIUM_", "PREFECT_API_")):
            monkeypatch.delenv(name)
    # Nor does it leave a server behind.
    monkeypatch.setenv("SENSORIUM_KEEP_SERVER_MINUTES", "0")


@pytest.fixture(scope="session", autouse=True)
def _one_parquet_process() -> Iterator[None]:
    """All tests of a process read foreign Parquet in one more: it takes as long to start as many of them run."""
    with parquet_reader():
        yield


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of simulated archives, with their truth in ``truth``. Not to be changed."""
    return made_once(tmp_path_factory, "archives", lambda root: simulate(root, sessions=SIMULATED, **SIZE))


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Trainings in this process draw no curves, which takes as long as several of their epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.training.training.draw_curves", lambda *_, **__: None)
        yield
