"""A server stays for the next command, ends by itself, and no other process is ever taken for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from fixtures.command_line import Outcome
from fixtures.lab import COMMAND
from fixtures.small_prefect import write_small_prefect
from fixtures.waiting import wait_until
from flows.lab import (
    LastingServer,
    ServerError,
    find_lasting_server,
    is_used,
    join_lasting_server,
    start_server,
    stop_lasting_server,
)
from flows.lab.local_server import listen
from flows.lab.server_record import ServerFiles, ServerRecord
from sensorium_data.files import close_locked, try_lock

#: Longer than any test.
LONG_S = 600.0

pytestmark = pytest.mark.flows


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose servers start at once; none of them outlives the test."""
    monkeypatch.setenv("PYTHONPATH", str(write_small_prefect(tmp_path / "small")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "home"
    yield home
    for pid in servers_of(home):
        os.kill(pid, signal.SIGKILL)


def servers_of(home: Path) -> list[int]:
    """Process ids of the servers of a home."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if "flows.lab.server_process" in (process.info["cmdline"] or ()):
            try:
                if process.environ().get("PREFECT_HOME") == str(home):
                    found.append(process.info["pid"])
            except psutil.Error:
                continue
    return found


def use(home: Path, idle_s: float = LONG_S) -> LastingServer:
    server = join_lasting_server(home, idle_s=idle_s)
    server.wait_until_healthy()
    return server


def pid_of(home: Path) -> int:
    record = find_lasting_server(home)
    assert record is not None
    return record.pid


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not asked after yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_next_command_uses_the_same_server_and_it_ends_when_told(home: Path) -> None:
    first = use(home)
    assert first.is_new
    with urlopen(f"{first.url}/api/health") as answer:  # noqa: S310 (loopback)
        assert answer.read() == b"true"
    first.leave()
    second = use(home)
    assert not second.is_new
    assert second.url == first.url
    assert servers_of(home) == [pid_of(home)]
    with pytest.raises(ServerError, match="the server is in use"):
        stop_lasting_server(home)
    second.leave()
    stopped = stop_lasting_server(home)
    assert stopped is not None
    wait_until(lambda: not is_running(stopped.pid))
    assert stop_lasting_server(home) is None
    assert find_lasting_server(home) is None


def test_it_ends_by_itself_only_when_nobody_uses_it(home: Path) -> None:
    server = use(home, idle_s=0.2)
    pid = pid_of(home)
    record = find_lasting_server(home)
    assert record is not None
    assert is_used(record)
    # Five times as long as it would wait.
    time.sleep(1)
    assert is_running(pid)
    server.leave()
    wait_until(lambda: not is_running(pid))
    assert use(home).is_new


def test_an_open_request_of_somebody_else_is_use(home: Path) -> None:
    server = use(home, idle_s=0.2)
    pid = pid_of(home)
    with urlopen(f"{server.url}/endless") as answer:  # noqa: S310 (loopback)
        server.leave()
        # Five times as long as it would wait.
        time.sleep(1)
        assert is_running(pid)
        assert answer.read(1) == b"a"
    wait_until(lambda: not is_running(pid))


def test_commands_that_start_at_once_share_one_server(home: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        servers = list(pool.map(lambda _: use(home), range(6)))
    assert len({server.url for server in servers}) == 1
    assert sum(server.is_new for server in servers) == 1
    assert len(servers_of(home)) == 1


def test_a_killed_server_is_replaced(home: Path) -> None:
    use(home).leave()
    pid = pid_of(home)
    os.kill(pid, signal.SIGKILL)
    # Whoever comes while it dies may still find it.
    wait_until(lambda: not is_running(pid))
    again = use(home)
    assert again.is_new


def test_a_server_that_dies_after_it_was_found_is_replaced_where_it_was(home: Path) -> None:
    use(home).leave()
    pid = pid_of(home)
    found = join_lasting_server(home, idle_s=LONG_S)
    assert not found.is_new
    os.kill(pid, signal.SIGKILL)
    found.wait_until_healthy()
    assert found.is_new
    record = find_lasting_server(home)
    assert record is not None
    assert record.pid != pid
    assert record.idle_s == LONG_S
    assert found.url == f"http://127.0.0.1:{record.port}"
    assert is_used(record)
    # Once: whatever ends a second one would end a third.
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: find_lasting_server(home) is None)
    with pytest.raises(ServerError, match="the server has ended"):
        found.wait_until_healthy()


def test_commands_that_found_the_same_dying_server_share_another_one(home: Path) -> None:
    use(home).leave()
    found = [join_lasting_server(home, idle_s=LONG_S) for _ in range(3)]
    os.kill(pid_of(home), signal.SIGKILL)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda server: server.wait_until_healthy(), found))
    assert servers_of(home) == [pid_of(home)]


def test_a_server_that_died_is_not_replaced_where_something_else_listens(home: Path) -> None:
    use(home).leave()
    found = join_lasting_server(home, idle_s=LONG_S)
    os.kill(pid_of(home), signal.SIGKILL)
    wait_until(lambda: find_lasting_server(home) is None)
    with listen(int(found.url.rpartition(":")[2])), pytest.raises(ServerError, match="something else has its port"):
        found.wait_until_healthy()
    # The next command takes another port.
    assert use(home).is_new


def test_a_server_that_took_the_place_of_another_is_told(home: Path) -> None:
    use(home).leave()
    found = join_lasting_server(home, idle_s=LONG_S)
    found.leave()
    stop_lasting_server(home)
    other = use(home)
    assert other.url != found.url
    with pytest.raises(ServerError, match="another server has taken its place"):
        found.wait_until_healthy()


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setenv("PREFECT_SERVER_DATABASE_ECHO", "true"),
        lambda patch: patch.setattr("flows.lab.lasting_server.version", lambda name: "9.9.9"),
        lambda patch: patch.setattr(sys, "prefix", "/another/environment"),
    ],
    ids=["settings", "version", "environment"],
)
def test_a_server_that_does_not_fit_is_replaced_unless_it_is_in_use(
    home: Path, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    first = use(home)
    pid = pid_of(home)
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        with pytest.raises(ServerError, match="the server is in use"):
            join_lasting_server(home, idle_s=LONG_S)
        assert is_running(pid)
        first.leave()
        assert join_lasting_server(home, idle_s=LONG_S).is_new
    wait_until(lambda: not is_running(pid))


def test_how_lines_are_written_is_no_reason_for_another_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(home)
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    assert not use(home).is_new


def test_a_server_without_its_database_is_replaced(home: Path) -> None:
    use(home).leave()
    pid = pid_of(home)
    (home / "prefect.db").unlink()
    assert use(home).is_new
    wait_until(lambda: not is_running(pid))
    assert (home / "prefect.db").exists()


def test_a_server_whose_home_is_gone_ends(home: Path) -> None:
    use(home, idle_s=5.0).leave()
    pid = pid_of(home)
    shutil.rmtree(home)
    wait_until(lambda: not is_running(pid), timeout_s=4.0)
    assert not is_running(pid)


def test_a_server_that_fails_is_told_with_the_last_line_of_its_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_PREFECT_FAILS", "1")
    server = join_lasting_server(home, idle_s=LONG_S)
    with pytest.raises(ServerError, match="the server has ended: found it was told to fail"):
        server.wait_until_healthy()


def change_record(home: Path, **changes: object) -> ServerRecord:
    files = ServerFiles(home)
    record = files.read()
    assert record is not None
    changed = replace(record, **changes)
    files.record.write_bytes(changed.to_json())
    return changed


def test_a_process_that_is_not_the_server_is_never_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.lab.lasting_server._DYING_S", 0.1)
    use(home).leave()
    stopped = stop_lasting_server(home)
    assert stopped is not None
    files = ServerFiles(home)
    lock = files.open_record()
    assert try_lock(lock, files.record)
    other = subprocess.Popen(["sleep", "600"])
    try:
        # As if the number had been given to another process, and while something holds the lock.
        files.record.write_bytes(replace(stopped, pid=other.pid).to_json())
        for act in (stop_lasting_server, lambda home: join_lasting_server(home, idle_s=LONG_S)):
            with pytest.raises(ServerError, match=f"found a record of process {other.pid}"):
                act(home)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        close_locked(lock)


def test_a_server_whose_record_is_another_ends(home: Path) -> None:
    use(home, idle_s=5.0).leave()
    pid = pid_of(home)
    change_record(home, pid=pid + 1)
    wait_until(lambda: not is_running(pid))
    assert not is_running(pid)


def test_a_server_with_another_start_is_another_process(home: Path) -> None:
    use(home).leave()
    record = find_lasting_server(home)
    assert record is not None
    assert record.is_process()
    assert not replace(record, identity="1").is_process()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100_000])
def test_a_stale_record_that_is_none_is_cleared(home: Path, content: bytes) -> None:
    home.mkdir()
    files = ServerFiles(home)
    files.record.write_bytes(content)
    assert find_lasting_server(home) is None
    assert stop_lasting_server(home) is None
    assert use(home).is_new
    assert json.loads(files.record.read_bytes())["pid"] == pid_of(home)


def test_a_port_that_somebody_else_answers_at_is_not_the_server(home: Path) -> None:
    use(home).leave()
    record = find_lasting_server(home)
    assert record is not None
    assert ServerRecord.from_json(json.dumps(asdict(record) | {"format": 2}).encode()) is None
    change_record(home, token="another")  # noqa: S106 (no password)
    assert use(home).is_new


def test_a_server_of_a_command_ends_with_it_and_both_kinds_share_the_template(home: Path) -> None:
    other = home.with_name("other")
    with start_server(other, 0) as server:
        server.wait_until_healthy()
        (pid,) = servers_of(other)
    wait_until(lambda: not is_running(pid))
    assert (other / "server.log").read_text() == "migrated\n"
    use(home)
    assert (home / "server.log").read_text() == ""


def test_the_command_starts_shows_and_stops_it(sensorium: Callable[..., Outcome], home: Path) -> None:
    command = ("--home", home, "--json")
    assert sensorium("server", "status", *command).status == 1
    started = sensorium("server", "start", "--minutes", "7", *command)
    assert started.status == 0, started.err
    shown = sensorium("server", "status", *command)
    assert shown.status == 0
    row = json.loads(shown.out)
    assert row == json.loads(started.out)
    assert row["minutes"] == 7
    assert not row["in use"]
    server = use(home)
    assert row["url"] == server.url
    assert json.loads(sensorium("server", "status", *command).out)["in use"]
    sensorium("server", "stop", *command).assert_refused("the server is in use", str(home))
    server.leave()
    again = sensorium("server", "start", "--minutes", "7", "--home", home)
    assert "a server runs already" in again.out
    sensorium("server", "start", "--minutes", "8", "--home", home).assert_refused(
        "a server runs already", "found 7 minutes", "expected 8", f"end it first: `sensorium server stop --home {home}`"
    )
    assert f"the server has ended (process {row['process']})" in sensorium("server", "stop", "--home", home).out
    assert sensorium("server", "stop", "--home", home).out == "no server runs\n"
    status = sensorium("server", "status", "--home", home)
    assert status.status == 1
    assert f"no server runs; `sensorium server start --home {home}` starts one" in status.out
    assert json.loads(sensorium("server", "status", *command).out) is None


@pytest.mark.parametrize("action", ["status", "stop"])
def test_minutes_are_an_option_of_start_alone(sensorium: Callable[..., Outcome], tmp_path: Path, action: str) -> None:
    sensorium("server", action, "--minutes", "5", "--home", tmp_path).assert_refused(
        f"found --minutes 5 with {action}", f"leave it out: `sensorium server {action} --home {tmp_path}`"
    )


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_time_that_makes_no_sense_is_refused(
    sensorium: Callable[..., Outcome], tmp_path: Path, minutes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensorium("server", "start", "--home", tmp_path, "--minutes", minutes).assert_refused("--minutes")
    sensorium("server", "start", "--home", tmp_path).assert_refused("SENSORIUM_KEEP_SERVER_MINUTES is 0")
    if minutes != "0":
        monkeypatch.setenv("SENSORIUM_KEEP_SERVER_MINUTES", minutes)
        sensorium("server", "start", "--home", tmp_path).assert_refused("KEEP_SERVER_MINUTES", "a number from 0 up")
    assert list(tmp_path.iterdir()) == []


def run_flow(home: Path, store: Path, archives: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, "ingest", "F", "--store", str(store), "--source", str(archives), "--flow"]
    settings = os.environ | {"PREFECT_HOME": str(home)} | environment
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=True)


@pytest.mark.slow  # starts Prefect's own server, and three commands
def test_commands_with_flow_use_one_server_of_prefect(archives: Path, tmp_path: Path) -> None:
    home, store = tmp_path / "home", tmp_path / "store"
    try:
        first = run_flow(home, store, archives, SENSORIUM_KEEP_SERVER_MINUTES="5")
        assert "a Prefect server starts; it stays for other commands, until 5 min without any" in first.stderr
        (pid,) = servers_of(home)
        second = run_flow(home, store, archives, SENSORIUM_KEEP_SERVER_MINUTES="5")
        assert "already done" in second.stdout
        assert "server" not in second.stderr
        assert servers_of(home) == [pid]
        # One of its own, beside the one that stays.
        assert "server" not in run_flow(home, store, archives).stderr
        assert servers_of(home) == [pid]
    finally:
        stop_lasting_server(home)
    assert servers_of(home) == []
