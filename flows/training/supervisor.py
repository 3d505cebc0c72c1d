"""Training in a process of its own: started, listened to, and ended with the one that waits for it."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

from flows.reporting import ignore_note
from flows.training.bound_process import package_environment
from flows.training.job import TrainingJob
from flows.training.messages import Listener
from flows.training.process import GRACE_S
from sensorium_data.errors import RunError

if TYPE_CHECKING:
    from flows.reporting import NotedProgress
    from models.runs import EpochMetrics
    from models.training import TrainingReport

__all__ = ["ready_process", "supervise_training"]

# Of the block around it; a list, since whoever takes the process out of it may run in a copy of the context.
_waiting: ContextVar[list[subprocess.Popen[bytes]]] = ContextVar("waiting")

_POLL_S = 0.5
_N_LAST_LINES = 20


def supervise_training(
    job: TrainingJob,
    *,
    progress: NotedProgress,
    on_epoch: Callable[[EpochMetrics], None],
    write_line: Callable[[str], None],
    environment: Mapping[str, str] = MappingProxyType({}),
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _process: None,
) -> TrainingReport:
    """Train a job in a process of its own, which is gone when this returns or raises.

    Whatever interrupts the caller (Ctrl-C, a flow run that is canceled) first asks the process to end: it has
    :data:`flows.training.process.GRACE_S` seconds to leave a checkpoint, and is killed after that, with all that it
    has started. If the caller is killed, the same happens without it.

    Parameters
    ----------
    job : TrainingJob
        What to train.
    progress, on_epoch
        As in :func:`flows.training.train_here`; called in this thread.
    write_line : callable
        Given what the process says or prints otherwise, line by line.
    environment : mapping of str to str
        What the process has otherwise in its environment; then none is taken that is ready.
    on_start : callable
        Given the process.

    Raises
    ------
    SensoriumError
        The known errors of the training itself, as they are raised in a process.
    RunError
        If the process died, or failed of something else.
    """
    listener = Listener(progress, on_epoch, write_line)
    waiting = _waiting.get(None)
    process = waiting.pop() if waiting and not environment else _start_process(environment)
    with process, _ended(process):
        on_start(process)
        _give_job(process, job)
        write_line(f"training in process {process.pid}")
        output = _Output(process)

        def write_error_line(line: str) -> None:
            # After a known error there come only the reports of how processes were ended for it.
            if listener.error is None:
                write_line(line)

        try:
            for line in output.read_messages(write_error_line):
                listener.take(line)
            _wait(process)
        except BaseException:
            write_line(f"asked process {process.pid} to end; it has {GRACE_S:.0f} s to leave a checkpoint")
            process.terminate()
            # It has to be listened to still: a full pipe would keep it from ending.
            last_words = Listener(ignore_note, lambda _metrics: None, write_line)
            # torchrun says at length that it was asked to.
            write_last = write_line if job.n_devices == 1 else _ignore_line
            for line in output.read_messages(write_last, for_s=GRACE_S):
                last_words.take(line)
            if last_words.error is not None:
                write_line(str(last_words.error))
            raise
    if listener.error is not None:
        raise listener.error
    if process.returncode != 0 or listener.report is None:
        raise _explain(process.returncode, output.last_error_lines)
    return listener.report


@contextlib.contextmanager
def ready_process() -> Iterator[None]:
    """Keep a process ready, while the block runs, that imports what a training needs before it is known what to train.

    The first :func:`supervise_training` in the block takes it. If none does, it is ended with the block.
    """
    waiting = [_start_process()]
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)
        for process in waiting:
            with process, _ended(process):
                pass


def _start_process(environment: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen[bytes]:
    """Start a process that waits for its job."""
    return subprocess.Popen(  # noqa: S603 (this module, by this interpreter)
        [sys.executable, "-m", "flows.training.process", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**package_environment(), **environment},
        # Ctrl-C on a terminal reaches the caller alone, and what the process starts can be ended with it.
        start_new_session=True,
    )


def _give_job(process: subprocess.Popen[bytes], job: TrainingJob) -> None:
    """Tell a process what to train; one that has died is noticed when it is waited for."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(job.model_dump_json().encode())


def _ignore_line(_line: str) -> None:
    """Do nothing."""


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process of the group behind."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # After Ctrl-C, Popen itself waits no longer than a moment.
        process.wait()


def _wait(process: subprocess.Popen[bytes], *options: int) -> bool:
    """Wait until a process is over, and return whether it is; its id stays its own until the group was ended."""
    flags = os.WEXITED | os.WNOWAIT
    for option in options:
        flags |= option
    return os.waitid(os.P_PID, process.pid, flags) is not None


class _Output:
    """What a process writes to standard output and standard error, in lines.

    Attributes
    ----------
    last_error_lines : deque of str
        The last lines of standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._selector = selectors.DefaultSelector()
        self._rests: dict[int, bytes] = {}
        self.last_error_lines: deque[str] = deque(maxlen=_N_LAST_LINES)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                self._selector.register(stream, selectors.EVENT_READ)
                self._rests[stream.fileno()] = b""

    def read_messages(self, write_line: Callable[[str], None], *, for_s: float = math.inf) -> Iterator[str]:
        """Yield the lines of standard output until the process is over, and write those of standard error.

        Parameters
        ----------
        write_line : callable
            Given the lines of standard error.
        for_s : float
            After so many seconds it ends in any case.
        """
        until_s = time.monotonic() + for_s
        while self._selector.get_map() and (left_s := until_s - time.monotonic()) > 0:
            ready = self._selector.select(min(left_s, _POLL_S))
            if not ready and _wait(self._process, os.WNOHANG):
                # What the process has left behind may keep its pipes open.
                return
            for key, _events in ready:
                for line in self._read(key.fd):
                    if key.fileobj is self._process.stdout:
                        yield line
                    else:
                        self.last_error_lines.append(line)
                        write_line(line)

    def _read(self, descriptor: int) -> list[str]:
        chunk = os.read(descriptor, 65_536)
        *lines, rest = (self._rests[descriptor] + chunk).split(b"\n")
        if not chunk:
            self._selector.unregister(descriptor)
            lines, rest = [rest], b""
        self._rests[descriptor] = rest
        texts = (line.decode(errors="replace").rstrip() for line in lines)
        return [text for text in texts if text]


def _explain(status: int, last_error_lines: deque[str]) -> RunError:
    """Say what a process died of that has told neither report nor error."""
    if status == -signal.SIGKILL:
        return RunError(
            "the training process was killed",
            found=f"exit by {_name(-status)}",
            remedy="if memory ran out (see `dmesg`), lower cache_bytes or batch_size; then run it again",
        )
    if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
        # By somebody else: whoever waits for it does not ask how it ended after asking for it.
        return RunError("the training was asked to end", found=_name(signal.SIGTERM), remedy="run it again to go on")
    if status < 0:
        return RunError(
            "the training process died",
            found=f"exit by {_name(-status)}",
            remedy="run it again; if it dies again, the lines that it wrote before may say why",
        )
    return RunError(
        "the training process failed",
        found=last_error_lines[-1] if last_error_lines else f"exit status {status}, and no report",
        remedy="see the lines that it wrote before",
    )


def _name(number: int) -> str:
    return f"{signal.Signals(number).name} (signal {number})"
