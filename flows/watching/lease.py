"""The slot that a run holds of its deployment's concurrency limit, and what becomes of the run without it.

Prefect terminates a run whose lease cannot be renewed. A server that was restarted has forgotten its leases (unless it
keeps them in files), and one that was away for five minutes finds them expired. The slot only keeps a second run
waiting. What may not happen twice at once is kept apart by locks on disk, so the first run may go on without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID
from weakref import WeakSet

import prefect.flow_engine
from prefect.context import FlowRunContext
from prefect.flows import Flow

__all__ = ["outlives_its_lease"]

_flows: WeakSet[Flow[..., Any]] = WeakSet()
# Prefect has no setting for this. Its engine finds the function under this name.
_NAME = "maintain_concurrency_lease"


def outlives_its_lease(flow: Flow[..., Any]) -> None:
    """Let the runs of a flow go on when their lease is lost; the runs of other flows are ended as before."""
    _flows.add(flow)
    _install()


@functools.cache
def _install() -> None:
    maintain: Callable[..., AbstractContextManager[None]] = getattr(prefect.flow_engine, _NAME)

    @functools.wraps(maintain)
    def maintain_if_possible(
        lease_id: UUID, lease_duration: float, raise_on_lease_renewal_failure: bool = False, **options: Any
    ) -> AbstractContextManager[None]:
        context = FlowRunContext.get()
        raises = raise_on_lease_renewal_failure and (context is None or context.flow not in _flows)
        return maintain(lease_id, lease_duration, raise_on_lease_renewal_failure=raises, **options)

    setattr(prefect.flow_engine, _NAME, maintain_if_possible)
