"""The command lines of the lab's pages run as they stand there, one after the other, in a shell."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fixtures.documents import Document
from fixtures.places import CHECKOUT
from sensorium_data.store import open_store

_FOREVER = ("prefect server start", "prefect worker start")
_LONGEST_S = 600


def read_lab_lines(page: str) -> list[str]:
    """Return the lines of a page's block for a lab, without their comments."""
    (block,) = (one for one in Document(CHECKOUT / page).blocks if "sensorium deploy --store" in one.text)
    return [re.sub(r"\s+#.*", "", line) for line in block.text.splitlines()]


@contextmanager
def running(command: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """Have a line run in a terminal of its own while the block runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/orchestration.md"])
def test_the_lines_for_a_lab_run_as_they_stand(page: str, archives: Path, tmp_path: Path) -> None:
    port = find_free_port()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_PROFILES_PATH": str(tmp_path / "profiles.toml"),
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # In the place of GIN.
        "SENSORIUM_SOURCE": str(archives),
    }
    lines = read_lab_lines(page)
    assert sum(line.startswith(_FOREVER) for line in lines) == 2
    with ExitStack() as stack:
        for number, written in enumerate(lines):
            line = written.replace("4200", port).replace("/data/", f"{tmp_path}/data/").replace("…", "")
            line = line.replace("https://hooks.slack.com/", f"http://127.0.0.1:{port}/")
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                environment[name] = value
            elif line.startswith(_FOREVER):
                stack.enter_context(running(line, environment, tmp_path / f"{number}.log"))
                if "server" in line:
                    wait_until_healthy(port, environment)
            else:
                done = subprocess.run(
                    ["bash", "-ec", line],
                    env=environment, capture_output=True, text=True, check=False, timeout=_LONGEST_S,
                )  # fmt: skip
                assert done.returncode == 0, (line, done.stdout, done.stderr)
    if page != "README.md":
        assert [session.alias for session in open_store(tmp_path / "data" / "store")] == ["F"]


def find_free_port() -> str:
    """Return a port on loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def wait_until_healthy(port: str, environment: dict[str, str]) -> None:
    """Wait for the server as a user does, who looks whether it answers."""
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/api/health', timeout=5)"
    give_up_s = time.monotonic() + _LONGEST_S
    while subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < give_up_s
        time.sleep(1)
