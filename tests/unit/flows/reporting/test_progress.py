from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from rich.console import Console

import flows.reporting.progress_artifacts
from flows.reporting import NotedProgress, ignore_note, show_progress
from flows.reporting.pace import Pace, describe_pace
from flows.reporting.progress import join_progress, listening_progress, throttled_lines
from flows.reporting.progress_artifacts import artifact_progress
from sensorium_data.progress import Progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def report_each(progress: Progress, clock: Clock, label: str, dones: range, n_total: int, *, each_s: float) -> None:
    for n_done in dones:
        progress(label, n_done, n_total)
        clock.now_s += each_s


# The pace


def test_what_an_earlier_run_did_does_not_count_as_speed() -> None:
    pace = Pace(600, 711, 0, now_s=0)
    pace.update(610, 711, 50_000_000, now_s=20)
    assert pace.rate(20) == 0.5
    assert pace.byte_rate(20) == 2_500_000
    assert pace.left_s(20) == 101 / 0.5


def test_the_rate_follows_a_server_that_slows_down() -> None:
    pace = Pace(0, 10_000, None, now_s=0)
    for second in range(1, 101):
        pace.update(10 * second, 10_000, None, now_s=second)
    for second in range(101, 301):
        pace.update(1000 + (second - 100), 10_000, None, now_s=second)
    assert pace.rate(300) == pytest.approx(1.0)


def test_work_that_stands_still_does_not_keep_its_rate() -> None:
    pace = Pace(0, 100, 0, now_s=0)
    pace.update(50, 100, 10_000, now_s=10)
    assert pace.byte_rate(12) == 1000
    assert pace.byte_rate(1030) == 10


def test_a_thread_that_reports_late_turns_nothing_back() -> None:
    pace = Pace(0, 10, None, now_s=0)
    pace.update(6, 10, 600, now_s=6)
    pace.update(5, 10, 500, now_s=6.1)
    assert (pace.n_done, pace.n_bytes) == (6, 600)


def test_the_last_line_tells_the_rate_of_the_whole_work() -> None:
    pace = Pace(0, 400, 0, now_s=0)
    pace.update(100, 400, 10, now_s=200)
    pace.update(400, 400, 4_000_000, now_s=250)
    assert describe_pace(pace, 250) == "400 of 400 in 4 min 10 s, 1.6/s, 4.0 MB at 16.0 kB/s"


def test_nothing_is_foretold_before_anything_was_done() -> None:
    assert describe_pace(Pace(3, 10, None, now_s=0), 5) == "3 of 10"
    assert describe_pace(Pace(0, 0, None, now_s=0), 0) == "0 of 0"


# Lines


def test_lines_come_now_and_then_and_at_the_end(clock: Clock) -> None:
    lines: list[str] = []
    progress = throttled_lines(lines.append, every_s=5, clock=clock)
    report_each(progress, clock, "convert F", range(100, 123), 122, each_s=1)
    assert lines == [
        "convert F: 105 of 122, 1.0/s, 17 s left",
        "convert F: 110 of 122, 1.0/s, 12 s left",
        "convert F: 115 of 122, 1.0/s, 7 s left",
        "convert F: 120 of 122, 1.0/s, 2 s left",
        "convert F: 122 of 122 in 22 s, 1.0/s",
    ]


def test_work_of_hours_gets_a_line_a_minute(clock: Clock) -> None:
    lines: list[str] = []
    report_each(throttled_lines(lines.append, clock=clock), clock, "convert F", range(7200), 10_000, each_s=1)
    assert 120 < len(lines) < 180


def test_labels_at_once_do_not_disturb_each_other(clock: Clock) -> None:
    lines: list[str] = []
    progress = throttled_lines(lines.append, clock=clock)
    progress("convert F", 0, 10)
    progress("convert G", 50, 100)
    clock.now_s += 10
    progress("convert F", 5, 10, n_bytes=2000)
    progress("convert G", 60, 100)
    assert lines == [
        "convert F: 5 of 10, 30.0/min, 2.0 kB at 200 bytes/s, 10 s left",
        "convert G: 60 of 100, 1.0/s, 40 s left",
    ]


def test_a_label_may_begin_anew(clock: Clock) -> None:
    lines: list[str] = []
    progress = throttled_lines(lines.append, clock=clock)
    for _ in range(2):
        report_each(progress, clock, "verify", range(3), 2, each_s=1)
        clock.now_s += 1000
    assert lines == ["verify: 2 of 2 in 2 s, 1.0/s"] * 2


def test_everybody_who_listens_is_told() -> None:
    told: list[tuple[object, ...]] = []

    def listen(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        told.append((label, n_done, n_total, n_bytes, note))

    join_progress(listen, ignore_note, listen)("score", 1, 2, n_bytes=3, note="epoch 2")
    assert told == [("score", 1, 2, 3, "epoch 2")] * 2


# The terminal


def show_on(console: Console, work: Callable[[NotedProgress], None]) -> str:
    with show_progress(console) as progress:
        assert listening_progress() is progress
        work(progress)
    assert listening_progress() is None
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_codes(shown: str) -> str:
    """Drop what moves the cursor; a row drawn over another one becomes a line."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n")


def test_elsewhere_than_on_a_terminal_lines_are_plain() -> None:
    console = Console(file=io.StringIO(), width=20)
    shown = show_on(console, lambda progress: progress("convert [F], a long label", 5, 5))
    assert shown == "convert [F], a long label: 5 of 5\n"


@pytest.mark.parametrize("width", [60, 80, 140])
def test_bars_fit_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)

    def work(progress: Progress) -> None:
        progress("convert dynamic30000-1-2-Video-0123456789abcdef", 123, 711, n_bytes=1_234_567)
        progress("verify F", 0, 100)
        progress("verify F", 50, 100)

    rows = [row for row in without_codes(show_on(console, work)).splitlines() if " of " in row]
    # The last drawing of the bars, one row each.
    convert, verify = rows[-2:]
    assert "123 of 711" in convert
    assert "50 of 100" in verify
    assert len(convert) == len(verify) == width
    assert ("1.2 MB" in convert) == (width >= 100)


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (60, "12 of 120", "epoch"),
        (80, "epoch 2 of 12", "waiting"),
        (100, "epoch 2 of 12, 5% waiting for data", "GPU"),
        (140, "epoch 2 of 12, 5% waiting for data, 3.1 GB GPU memory", "…"),
    ],
)
def test_a_note_is_shown_as_far_as_the_terminal_has_room(width: int, shown: str, left_out: str) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)

    def work(progress: NotedProgress) -> None:
        progress("training windows", 0, 120, note="epoch 1 of 12")
        progress("training windows", 12, 120, note="epoch 2 of 12, 5% waiting for data, 3.1 GB GPU memory")

    row = [row for row in without_codes(show_on(console, work)).splitlines() if "12 of 120" in row][-1]
    assert len(row) == width
    assert shown in row
    assert left_out not in row


def test_lines_and_artifacts_tell_the_whole_note(server: Server, clock: Clock) -> None:
    lines: list[str] = []
    progress = join_progress(throttled_lines(lines.append, clock=clock), artifact_progress(pytest.fail, clock=clock))
    progress("training windows", 3, 4, note="epoch 1 of 1")
    clock.now_s += 5
    progress("training windows", 3, 4, note="epoch 1 of 1")
    assert lines == ["training windows: 3 of 4, epoch 1 of 1"]
    assert server.descriptions == lines * 2


def test_a_full_bar_makes_place_for_a_line() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)

    def work(progress: Progress) -> None:
        progress("verify F", 0, 2)
        progress("verify F", 2, 2)

    shown = without_codes(show_on(console, work))
    assert [row for row in shown.splitlines() if row.startswith("verify F: 2 of 2")]


def test_threads_report_at_once_and_every_label_ends(clock: Clock) -> None:
    lines: list[str] = []
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)

    def work(bars: Progress) -> None:
        progress = join_progress(bars, throttled_lines(lines.append, clock=clock))
        with ThreadPoolExecutor(8) as pool:
            for n in range(8):
                pool.submit(report_each, progress, Clock(), f"part {n}", range(201), 200, each_s=0)

    shown = show_on(console, work)
    assert sorted(lines) == [f"part {n}: 200 of 200" for n in range(8)]
    assert all(f"part {n}: 200 of 200" in shown for n in range(8))


# Artifacts


class Server:
    """Takes progress artifacts as Prefect's server does, or refuses them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, object]] = []
        self.keys: dict[UUID, str] = {}
        self.refuses = False
        self.descriptions: list[str] = []

    def create(self, key: str, kind: str, progress: float, description: str) -> UUID:
        assert kind == "progress"
        artifact = uuid4()
        self.keys[artifact] = key
        self.update(artifact, progress, description)
        return artifact

    def update(self, artifact: UUID, progress: float, description: str) -> None:
        self.requests.append((self.keys[artifact], progress))
        self.descriptions.append(description)
        if self.refuses:
            raise ConnectionError("nobody there")

    def delete(self, artifact: UUID) -> None:
        self.requests.append((self.keys.pop(artifact), "deleted"))
        if self.refuses:
            raise ConnectionError("nobody there")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(flows.reporting.progress_artifacts, "create_artifact", server.create)
    monkeypatch.setattr(flows.reporting.progress_artifacts, "update_artifact", server.update)
    monkeypatch.setattr(flows.reporting.progress_artifacts, "delete_artifact", server.delete)
    return server


def test_each_label_has_one_artifact_that_is_updated_now_and_then_and_deleted_at_the_end(
    server: Server, clock: Clock
) -> None:
    progress = artifact_progress(pytest.fail, every_s=5, clock=clock)
    report_each(progress, clock, "convert F", range(11), 10, each_s=1)
    # What is done at once needs none.
    progress("verify F", 0, 0)
    assert server.requests == [
        ("progress-convert-f", 0),
        ("progress-convert-f", 50),
        ("progress-convert-f", "deleted"),
    ]


def test_a_server_that_is_away_is_told_of_once_and_left_alone_for_a_while(server: Server, clock: Clock) -> None:
    warnings: list[str] = []
    progress = artifact_progress(warnings.append, every_s=5, clock=clock)
    server.refuses = True
    report_each(progress, clock, "convert F", range(100), 1000, each_s=1)
    assert len(server.requests) == 2
    assert len(warnings) == 1
    assert "nobody there" in warnings[0]
    server.refuses = False
    clock.now_s += 60
    progress("convert F", 999, 1000)
    progress("convert F", 1000, 1000)
    assert server.requests[2:] == [("progress-convert-f", 99.9), ("progress-convert-f", "deleted")]
    assert len(warnings) == 1


def test_work_does_not_wait_for_the_request_of_another_thread(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()
    progress = artifact_progress(pytest.fail, every_s=5, clock=clock)
    progress("convert F", 0, 10)

    def answer_late(artifact: UUID, progress: float, description: str) -> None:
        asked.set()
        assert answered.wait(30)
        server.update(artifact, progress, description)

    monkeypatch.setattr(flows.reporting.progress_artifacts, "update_artifact", answer_late)
    clock.now_s += 10
    waiting = threading.Thread(target=progress, args=("convert F", 1, 10))
    waiting.start()
    assert asked.wait(30)
    clock.now_s += 10
    progress("convert F", 2, 10)
    assert server.requests == [("progress-convert-f", 0)]
    answered.set()
    waiting.join()
    progress("convert F", 10, 10)
    assert server.requests[1:] == [("progress-convert-f", 10), ("progress-convert-f", "deleted")]
