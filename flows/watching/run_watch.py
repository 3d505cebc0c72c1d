"""A flow run watched from inside: what the server takes it for, and what is reported of it in the end.

Prefect's worker stops listening for cancellations when the server has been away for half a minute, and an automation
takes runs for crashed whose heartbeats it missed. A run that is watched asks for its state itself.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, Self, TypeVar

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.flows import Flow
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Running

from flows.watching.kept_lines import KEPT_LINES
from flows.watching.lease import outlives_its_lease
from flows.watching.lost_runs import close_lost_runs, delete_progress
from flows.watching.server import Connect, is_absence, quick_client, wait_for_server, warn
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible

__all__ = ["RunCanceled", "RunWatch", "report", "server_is_away", "watched"]

P = ParamSpec("P")
R = TypeVar("R")

_POLL_S = 10.0
# Between attempts to send a last report.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
# A worker that listens ends a run within seconds, and would interrupt what this process does to end in order.
_WORKERS_TIME_S = 30.0
_CANCELED = "the run was canceled on the server; run it again to go on"


class RunCanceled(Abort):
    """A run was canceled on the server, and has been reported so; the engine has nothing left to report."""


class RunWatch:
    """What a process knows of a flow run of its own; made by :func:`watched`.

    Parameters
    ----------
    run : FlowRun
        The run.
    end : callable
        Called once, in the watching thread, when the run is to end because it is canceled.
    write_line : callable
        Takes a line for the run's log.
    connect : callable
        Opens a client.
    patience_s : float
        How long somebody else may take to end a canceled run, in seconds.
    clock : callable
        Returns seconds, and never goes back.
    """

    def __init__(
        self,
        run: FlowRun,
        *,
        end: Callable[[], None],
        write_line: Callable[[str], None],
        connect: Connect = quick_client,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._end = end
        self._write_line = write_line
        self._connect = connect
        self._patience_s = patience_s
        self._clock = clock
        self._parent = _current.get()
        self._away_since_s: float | None = None
        self._canceled_since_s: float | None = None
        self._ended = False
        self._is_refused = False
        self._late: list[Callable[[], object]] = []
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_away(self) -> bool:
        """Whether the server did not answer when it was asked last."""
        return self._away_since_s is not None

    @property
    def is_canceled(self) -> bool:
        """Whether this run, or one that it is part of, ends because it was canceled."""
        return self._ended or (self._parent is not None and self._parent.is_canceled)

    def __enter__(self) -> Self:
        """Watch in a thread of its own, and first clear up after earlier runs."""
        context = copy_context()
        threading.Thread(target=context.run, args=(self._watch,), name="run-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer: after this, the thread neither ends the run nor changes its state."""
        with self._lock:
            self._over.set()

    def look(self, *, is_last: bool = False) -> None:
        """Ask the server once what it takes the run for, and put that right or heed it.

        Parameters
        ----------
        is_last : bool
            Whether this is the look after the watch, at the end of the run.
        """
        try:
            with self._connect() as client:
                state = client.read_flow_run(self._run.id).state
                if state is not None and state.is_crashed():
                    self._report_alive(client, state, is_last=is_last)
        except Exception as error:  # noqa: BLE001 (whatever Prefect's client raises, the work goes on)
            self._take_failure(error)
            return
        self._note_presence()
        if state is None or not (state.is_cancelling() or state.is_cancelled()):
            self._canceled_since_s = None
            return
        if self._canceled_since_s is None:
            self._canceled_since_s = self._clock()
        if self._clock() - self._canceled_since_s >= self._patience_s:
            self._end_once()

    def put_off(self, send: Callable[[], object]) -> None:
        """Have something sent at the end of the run, when the server is there."""
        self._late.append(functools.partial(copy_context().run, send))

    def finish(self) -> None:
        """Wait for the server, and report what was put off, and that the run is alive to report its end."""
        # First, so that what is sent is not put off once more.
        self.look(is_last=True)
        if self.is_away:
            if not wait_for_server(connect=self._connect):
                KEPT_LINES.release()
                return
            self.look(is_last=True)
        late, self._late = [*self._late, self._clear_progress], []
        for send in late:
            try:
                _send_in_the_end(send)
            except Exception as error:  # noqa: BLE001 (whatever Prefect's client raises, the work is done)
                warn(f"a report that was put off cannot be sent: {error!r}")
        KEPT_LINES.wait_until_sent()

    def report_canceled(self) -> None:
        """Report the run as canceled."""
        if wait_for_server(connect=self._connect):
            with self._connect() as client:
                client.set_flow_run_state(self._run.id, Cancelled(message=_CANCELED), force=True)
                with suppress(Exception):
                    delete_progress(client, [self._run.id])

    def _clear_progress(self) -> None:
        """Delete the progress of work that ended early: what was completed has deleted its own."""
        with self._connect() as client:
            delete_progress(client, [self._run.id])

    def _report_alive(self, client: SyncPrefectClient, state: State[Any], *, is_last: bool) -> None:
        # The engine may have reported the end that this thread has not seen yet, and that is to stay.
        with self._lock:
            if self._over.is_set() and not is_last:
                return
            client.set_flow_run_state(self._run.id, Running(message="It is alive after all."), force=True)
        message = make_visible(hide_secrets(state.message or ""))
        self._write_line(f"the server took this run for crashed ({message}); it is alive and goes on")

    def _take_failure(self, error: Exception) -> None:
        if not is_absence(error):
            # Somebody may have deleted the run: it is there, and does not know this one.
            self._note_presence()
            if not self._is_refused:
                self._write_line(f"the state of this run cannot be read, the work goes on: {error!r}")
            self._is_refused = True
        elif self._away_since_s is None:
            self._away_since_s = self._clock()
            KEPT_LINES.hold()
            self._write_line(f"the Prefect server does not answer, the work goes on: {error!r}")

    def _note_presence(self) -> None:
        if self._away_since_s is not None:
            self._write_line(f"the Prefect server answers again after {self._clock() - self._away_since_s:.0f} s")
            KEPT_LINES.release()
            self._away_since_s = None

    def _watch(self) -> None:
        # It is nothing to the work if this fails.
        with suppress(Exception), self._connect() as client:
            n_closed = close_lost_runs(client, self._run)
            if n_closed:
                self._write_line(
                    f"closed {count_things(n_closed, 'run')} that earlier, crashed runs had left as running"
                )
        while not self._over.wait(_POLL_S):
            self.look()

    def _end_once(self) -> None:
        with self._lock:
            if self._ended or self._over.is_set():
                return
            self._ended = True
            self._write_line("the run was canceled: it ends")
            self._end()


_current: ContextVar[RunWatch | None] = ContextVar("sensorium_run_watch", default=None)


def server_is_away() -> bool:
    """Whether the server of the run around the caller did not answer when it was asked last."""
    watch = _current.get()
    return watch is not None and watch.is_away


def report(send: Callable[[], object]) -> None:
    """Send the server something that is to be kept: at once, or at the run's end if the server is away.

    Parameters
    ----------
    send : callable
        Asks the server, and may be called again after it raised.
    """
    watch = _current.get()
    if watch is not None and watch.is_away:
        watch.put_off(send)
        return
    try:
        send()
    except Exception as error:
        if watch is None or not is_absence(error):
            raise
        watch.put_off(send)


def watched(flow: Flow[P, R]) -> Flow[P, R]:
    """Have a flow's runs watched; the decorator above ``@flow``, whose flow it changes and returns.

    A server that is away does not end the work. A run that the server took for crashed reports that it is alive. A
    run that is canceled ends in order, whether or not its worker still listens. At the end the server is waited for.
    """
    function: Callable[P, R] = flow.fn

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return function(*args, **kwargs)
        with _watching(context.flow_run):
            return function(*args, **kwargs)

    # Prefect resolves the names in annotations where the function it calls was defined, and that is here.
    run.__annotations__ = inspect.get_annotations(function, eval_str=True)
    run.__dict__["__signature__"] = inspect.signature(function, eval_str=True)
    flow.fn = run
    outlives_its_lease(flow)
    return flow


@contextmanager
def _watching(run: FlowRun) -> Iterator[None]:
    watch = RunWatch(
        run,
        end=_terminate_main_thread,
        write_line=get_run_logger().warning,
        patience_s=_WORKERS_TIME_S if "PREFECT__FLOW_RUN_ID" in os.environ else 0.0,
    )
    token = _current.set(watch)
    try:
        try:
            with watch:
                yield
        finally:
            _current.reset(token)
    except BaseException as error:
        if watch.is_canceled:
            watch.report_canceled()
            raise RunCanceled(_CANCELED) from error
        if isinstance(error, RunCanceled):
            # The engine would take it for this run's, and report nothing.
            raise RunError("a part of this run was canceled", remedy="run it again to go on") from error
        if isinstance(error, Exception):
            watch.finish()
        # Who interrupts a run does not wait.
        KEPT_LINES.release()
        raise
    watch.finish()


def _send_in_the_end(send: Callable[[], object]) -> None:
    """Send what nobody sends again: a server whose database is locked for a moment refuses."""
    for pause_s in _PAUSES_S:
        try:
            send()
        except Exception as error:
            if not is_absence(error):
                raise
            time.sleep(pause_s)
        else:
            return
    send()


def _terminate_main_thread() -> None:
    """Interrupt the flow as SIGTERM does, if Prefect's engine listens for that."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
