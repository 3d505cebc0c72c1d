"""A part of a run that a worker of another pool does: a deployment's run, started, waited for, and canceled with it."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.logging import get_run_logger
from prefect.states import Cancelling

from flows.watching.server import Connect, is_absence, quick_client, wait_for_server
from sensorium_data.errors import RunError
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible

__all__ = ["finish_deployed", "is_deployed", "wait_for_run"]

_POLL_S = 2.0
# What Prefect writes before the message of a known error.
_EXCEPTION = re.compile(r"Flow run encountered an exception: \w+: ")


def is_deployed() -> bool:
    """Whether the present flow run is a deployment's, which a worker of its pool does."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


def finish_deployed(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> None:
    """Have the deployment that is named like its flow run as a part of the present run, and wait until it is done.

    Parameters
    ----------
    flow : Flow
        The deployment's flow.
    parameters : mapping
        Its parameters. Others have the flow's own defaults, whatever the deployment sets.

    Raises
    ------
    RunError
        If there is no such deployment, or its run ends in another way than well. A run that is still going on when
        the caller is interrupted is canceled.
    """
    name = f"{flow.name}/{flow.name}"
    defaults = {
        one.name: one.default
        for one in inspect.signature(flow.fn).parameters.values()
        if one.default is not inspect.Parameter.empty
    }
    wait_for_server()
    try:
        run = run_deployment(name, parameters={**defaults, **parameters}, timeout=0)
    except ObjectNotFound as error:
        raise RunError(
            "the server has no deployment for a step of the run",
            found=f"no {name}",
            remedy="put it there with `sensorium deploy` or set in_one_process",
        ) from error
    assert isinstance(run, FlowRun)  # noqa: S101 (Prefect returns a coroutine to callers that are coroutines)
    logger = get_run_logger()
    logger.info("%s: started as %s", name, make_visible(run.name))
    try:
        ended = wait_for_run(run, write_line=lambda line: logger.info("%s: %s", name, line))
    except BaseException:
        with suppress(Exception), quick_client() as client:
            client.set_flow_run_state(run.id, Cancelling(message="The run that it is part of ends."))
        raise
    state = ended.state
    if state is None or not state.is_completed():
        message = "" if state is None else _EXCEPTION.sub("", state.message or "")
        raise RunError(
            f"{name} ended as {'unknown' if state is None else state.name}",
            found=make_visible(hide_secrets(message)) or None,
        )


def wait_for_run(
    run: FlowRun,
    *,
    write_line: Callable[[str], None],
    connect: Connect = quick_client,
    sleep: Callable[[float], None] = time.sleep,
) -> FlowRun:
    """Wait until a flow run has ended, and return it; an absence of the server is waited out.

    Parameters
    ----------
    run : FlowRun
        The run.
    write_line : callable
        Takes a line when the run is in another state.
    connect : callable
        Opens a client.
    sleep : callable
        Waits for some seconds.
    """
    last = ""
    while True:
        try:
            with connect() as client:
                found = client.read_flow_run(run.id)
        except Exception as error:
            # The watch over the present run says that the server is away.
            if not is_absence(error):
                raise
        else:
            state = found.state
            name = "" if state is None else str(state.name)
            if name != last:
                write_line(f"{name}: no worker of its pool has taken it up" if name == "Late" else name)
            last = name
            if state is not None and state.is_final():
                return found
        sleep(_POLL_S)
