"""One GPU task at a time, by the limit that a Prefect server keeps for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.reporting import log_line
from flows.watching import wait_for_server
from models.devices import choose_device

__all__ = ["GPU_LIMIT", "gpu_slot", "slot_for"]

#: The name of the global concurrency limit.
GPU_LIMIT = "gpu"


def slot_for(device: str) -> AbstractContextManager[None]:
    """Return what holds a GPU task's slot, or nothing if ``auto``, ``cpu`` or ``cuda`` is no GPU here."""
    return gpu_slot() if choose_device(device).type == "cuda" else nullcontext()


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold one of the server's slots for GPU tasks while the block runs, waiting for it; without a limit, say so.

    Called inside a flow or task run.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            limit = None
    if limit is None:
        log_line(
            f"the server has no concurrency limit {GPU_LIMIT}: GPU tasks of several machines may run at the same time; "
            f"`prefect gcl create {GPU_LIMIT} --limit 1` makes it"
        )
        yield
        return
    log_line(f"asking for one of {limit.limit} slots of the concurrency limit {GPU_LIMIT}")
    is_done = False
    failure: BaseException | None = None
    try:
        # A server that is away for a while must not end a training of days: the lock of the device holds all the same.
        with concurrency(GPU_LIMIT, occupy=1, strict=True, raise_on_lease_renewal_failure=False):
            try:
                yield
            except BaseException as error:
                failure = error
                raise
            is_done = True
            wait_for_server()
    except Exception as error:
        if failure is not None:
            # What the work failed of, and not what then became of its slot.
            raise failure from None
        if not is_done:
            raise
        log_line(f"the slot of the concurrency limit {GPU_LIMIT} cannot be given back, its lease runs out: {error!r}")
