"""``sensorium ui`` and ``sensorium deploy`` as somebody at a terminal uses them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args
from urllib.request import urlopen

import pytest
import yaml

from fixtures.command_line import Outcome
from fixtures.lab import COMMAND
from fixtures.waiting import wait_until

pytestmark = pytest.mark.flows

Command = Callable[..., Outcome]


@pytest.mark.slow  # starts a server and two workers, and deploys
def test_ui_serves_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "ui", "--home", str(tmp_path / "home"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr.read()
        with urlopen(f"{url}/api/health", timeout=10) as answer:  # noqa: S310 (loopback)
            assert answer.status == 200
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) == 3
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_ui_says_that_its_port_is_taken(sensorium: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sensorium("ui", "--home", tmp_path / "home", "--port", port).assert_refused(str(port), "--port 4201")
    sensorium("ui", "--home", tmp_path / "home", "--port", 99_999).assert_refused("99999")
    assert not (tmp_path / "home").exists()


def test_deploy_without_a_server_says_how_to_get_one(sensorium: Command) -> None:
    sensorium("deploy").assert_refused("PREFECT_API_URL is not set", "prefect server start", "sensorium ui")


def test_deploy_refuses_a_webhook_that_is_none() -> None:
    from flows.lab import find_host
    from sensorium_data.errors import UsageError

    for url in ("hooks.slack.com/services", "ftp://host/x", "http://", "https://[::1/x", ""):
        with pytest.raises(UsageError, match="an http:// or https:// URL"):
            find_host(url)


def test_programs_end_with_whoever_started_them(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "from flows.training.bound_process import bound_command\n"
        "child = subprocess.Popen(bound_command(sys.executable, '-c', 'import time; time.sleep(600)'))\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Until it has become the program, it is not bound for certain.
        wait_until(lambda: b"bound_process" not in Path(f"/proc/{pid}/cmdline").read_bytes())
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_what_commands_and_deployments_repeat_is_what_it_is_elsewhere() -> None:
    from flows.cli.options import FramesName
    from flows.lab import find_checkout
    from flows.lab.automations import HEARTBEAT_S
    from sensorium_data.frames import FRAMES_PROFILES

    assert get_args(FramesName) == tuple(FRAMES_PROFILES)
    described = yaml.safe_load((find_checkout() / "prefect.yaml").read_text())["deployments"]
    for one in described:
        assert one["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_S)
