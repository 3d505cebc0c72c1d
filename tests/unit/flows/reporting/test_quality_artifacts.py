"""The verdict on all sessions of a store, of which some were checked anew."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from flows.reporting.quality_artifacts import CheckedSession, describe_all

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def checked_now(*n_failed: int, simulated: bool = False) -> Any:
    sessions = [
        SimpleNamespace(alias=alias, failed=("check",) * n, is_simulated=simulated)
        for alias, n in zip("ABC", n_failed, strict=False)
    ]
    return SimpleNamespace(sessions=sessions)


def test_sessions_that_were_checked_earlier_count_too() -> None:
    earlier = [
        CheckedSession("D", {"passed": 9}, LONG_AGO),
        CheckedSession("E", {"failed": 2, "passed": 7}, LONG_AGO),
        CheckedSession("F", {}, None),
    ]
    assert describe_all(checked_now(0), earlier) == (
        "2 checks failed in 1 of 3 sessions (1 checked anew; 2 earlier; 1 more not checked with this content)"
    )
    assert (
        describe_all(checked_now(0, 3), earlier[:1]) == "3 checks failed in 1 of 3 sessions (2 checked anew; 1 earlier)"
    )


def test_a_store_that_was_checked_whole() -> None:
    assert describe_all(checked_now(0, 0), []) == "No check failed in 2 sessions (2 checked anew)"
    assert describe_all(checked_now(0, simulated=True), []) == (
        "No check failed in 1 session (1 checked anew; simulated, no recordings: A)"
    )
