"""A run goes on when the server has forgotten its lease; Prefect's engine alone asks for leases."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import prefect.concurrency._leases
import prefect.flow_engine
import pytest
from prefect import flow
from prefect._internal.concurrency.cancellation import CancelledError
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.watching import watched

TIMEOUT_S = 30


@watched
@flow
def ours() -> None:
    """Do nothing."""


@flow
def theirs() -> None:
    """Do nothing."""


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The server refuses to renew leases; set once that was heeded."""
    heeded = threading.Event()
    original = prefect.concurrency._leases._handle_lease_renewal_failure

    def refuse(*_: object) -> None:
        raise LookupError("410 Gone")

    def heed(*arguments: Any) -> None:
        original(*arguments)
        heeded.set()

    monkeypatch.setattr(prefect.concurrency._leases, "_lease_renewal_loop", refuse)
    monkeypatch.setattr(prefect.concurrency._leases, "_handle_lease_renewal_failure", heed)
    return heeded


def work_with_a_lease(of: Flow[..., Any], lost: threading.Event) -> None:
    """Do as Prefect's engine does with a run of a deployment that has a limit."""
    context = FlowRunContext.model_construct(flow=of)
    token = FlowRunContext.__var__.set(context)
    maintain = prefect.flow_engine.maintain_concurrency_lease
    try:
        with (
            temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}),
            maintain(uuid4(), 300, raise_on_lease_renewal_failure=True),
        ):
            give_up_s = time.monotonic() + TIMEOUT_S
            while not lost.is_set():
                assert time.monotonic() < give_up_s
                time.sleep(0.01)
    finally:
        FlowRunContext.__var__.reset(token)


def test_our_runs_go_on(lost: threading.Event) -> None:
    work_with_a_lease(ours, lost)
    # The lease was lost, and the run was not ended for that.
    assert lost.is_set()


def test_other_runs_are_ended_as_prefect_does(lost: threading.Event) -> None:
    with pytest.raises(CancelledError):
        work_with_a_lease(theirs, lost)
