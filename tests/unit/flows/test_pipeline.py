"""When a pipeline has a process ready for training."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.recorded_stores import record_session


@pytest.mark.parametrize(
    ("sessions", "converts"),
    [(["F"], False), (["all"], False), (["F", "G"], True), (["new"], True), (["nobody's"], True)],
)
def test_it_is_ready_only_if_something_is_certain_to_be_converted(
    tmp_path: Path, sessions: list[str], converts: bool
) -> None:
    from flows.pipeline import will_convert

    assert will_convert(sessions, str(tmp_path))
    record_session(tmp_path, "F", n_by_tier={"train": 1})
    assert will_convert(sessions, str(tmp_path)) == converts
