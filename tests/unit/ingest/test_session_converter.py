"""Several sessions share threads, and all end in order when they are to stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sensorium_data.ingest.session_converter
from sensorium_data.errors import SensoriumError
from sensorium_data.ingest import SessionConverter
from sensorium_data.sessions import find_session


def test_the_end_waits_for_conversions_under_way_and_lets_no_other_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    ended: list[str] = []

    def convert(session: Any, _store: Any, *, stopping: threading.Event, progress: Any, **_: Any) -> None:
        begun.set()
        assert stopping.wait(60)
        ended.append(session.alias)
        progress("convert", 1, 2)

    monkeypatch.setattr(sensorium_data.ingest.session_converter, "convert_session", convert)
    with ThreadPoolExecutor(1) as pool:
        with SessionConverter(str(tmp_path), jobs=1) as converter:
            future = pool.submit(converter.convert, find_session("F"))
            assert begun.wait(60)
        assert ended == ["F"]
        assert isinstance(future.exception(60), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            converter.convert(find_session("D"))
    assert ended == ["F"]


def test_a_failure_leaves_the_other_sessions_their_turn(tmp_path: Path) -> None:
    with SessionConverter(str(tmp_path / "store"), sources=[str(tmp_path)], jobs=1) as converter:
        for _ in range(2):
            with pytest.raises(SensoriumError, match=r"8744edeac3b4d1ce16b680916b5267ce"):
                converter.convert(find_session("D"))
