"""Several trainings at the same time, each in a process of its own, and on a GPU of its own where there are GPUs."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from flows.training.job import TrainingJob
from flows.training.supervisor import supervise_training
from sensorium_data.counting import name_some
from sensorium_data.errors import SensoriumError, TerminatedError, UsageError
from sensorium_data.machine import count_cores
from sensorium_data.ordered_map import as_finished, drop

if TYPE_CHECKING:
    from flows.reporting import NotedProgress
    from models.runs import EpochMetrics
    from models.training import TrainingReport

__all__ = ["train_side_by_side"]

# So many trainings that were not begun are named.
_MOST_NAMED = 10


def train_side_by_side(
    jobs: Sequence[TrainingJob],
    n_at_once: int,
    *,
    describe: Callable[[TrainingJob], str],
    progress: NotedProgress,
    on_epoch: Callable[[str, EpochMetrics], None],
    write_line: Callable[[str], None],
) -> list[TrainingReport]:
    """Train jobs, some of them at the same time, and return their reports in their order.

    Each process sees one GPU alone, or has its share of the cores. If a training fails, a line says so at once; those
    that are under way are finished, and no other is begun. Ctrl-C and SIGTERM reach all of them: each leaves a
    checkpoint.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        Of one device each.
    n_at_once : int
        How many, at least 1.
    describe : callable
        Given a job, what lines and bars call it.
    progress, write_line
        As :func:`flows.training.supervise_training` takes them; called from several threads.
    on_epoch : callable
        Given what a job is called, and its epoch's metrics.

    Raises
    ------
    UsageError
        If a job takes several devices, or there are fewer GPUs than trainings at once.
    SensoriumError
        That of the first training that failed.
    """
    environments: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for environment in _share_machine(jobs, n_at_once):
        environments.put(environment)
    processes: set[subprocess.Popen[bytes]] = set()
    stopping, failing = threading.Event(), threading.Event()

    def note(process: subprocess.Popen[bytes]) -> None:
        processes.add(process)
        if stopping.is_set():
            # It was started while the others were asked to end.
            process.terminate()

    def train(job: TrainingJob) -> TrainingReport:
        name = describe(job)
        if stopping.is_set():
            raise KeyboardInterrupt
        if failing.is_set():
            # The thread of one that failed takes this one before the main thread can cancel it.
            raise CancelledError
        environment = environments.get()
        try:
            return supervise_training(
                job,
                progress=lambda label, *numbers, **more: progress(f"{label} {name}", *numbers, **more),
                on_epoch=lambda metrics: on_epoch(name, metrics),
                write_line=lambda line: write_line(f"{name}: {line}"),
                environment=environment,
                on_start=note,
            )
        except SensoriumError as error:
            if not stopping.is_set():
                failing.set()
                write_line(f"{name}: failed: {error}")
            raise
        finally:
            environments.put(environment)

    def list_left() -> list[str]:
        return [describe(job) for job, future in zip(jobs, futures, strict=True) if _was_not_begun(future)]

    with ThreadPoolExecutor(n_at_once, thread_name_prefix="train") as pool, _sigterm_raises() as is_asked_to_end:
        futures = [pool.submit(train, job) for job in jobs]
        try:
            for future in as_finished(futures):
                # One that was not begun after a failure may be known before the failure is.
                if not _was_not_begun(future):
                    future.result()
        except BaseException as error:
            if isinstance(error, SensoriumError) and not is_asked_to_end.is_set():
                # Those that are under way are worth their time.
                drop(futures)
                left = list_left()
                if left:
                    write_line(f"not begun: {name_some(left, most=_MOST_NAMED, separator='; ')}")
                raise
            stopping.set()
            for process in list(processes):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            drop(futures)
            raise
    return [future.result() for future in futures]


def _was_not_begun(future: Future[TrainingReport]) -> bool:
    return future.cancelled() or isinstance(future.exception(), CancelledError)


@contextmanager
def _sigterm_raises() -> Iterator[threading.Event]:
    """Let SIGTERM raise a :class:`TerminatedError` while the block runs, in the main thread; the event says it came."""
    came = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        came.set()
        raise TerminatedError("training was stopped by SIGTERM", remedy="start it again: it goes on where it stopped")

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _share_machine(jobs: Sequence[TrainingJob], n_at_once: int) -> list[dict[str, str]]:
    """Return the environments of the processes that run at the same time."""
    from models.devices import choose_device

    configs = [job.config() for job in jobs]
    if any(config.n_devices > 1 for config in configs):
        raise UsageError(
            "runs that take several devices are trained one after the other",
            found=f"n_devices {max(config.n_devices for config in configs)}, and {n_at_once} at once",
            remedy="leave out --at-once, or set n_devices to 1",
        )
    if not any(choose_device(config.device).type == "cuda" for config in configs):
        n_threads = max(1, count_cores() // n_at_once)
        return [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(n_threads))}] * n_at_once
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [name.strip() for name in visible.split(",") if name.strip()]
    gpus = gpus or [str(index) for index in range(torch.cuda.device_count())]
    if len(gpus) < n_at_once:
        raise UsageError(
            "torch sees fewer GPUs than runs are to be trained at once",
            found=len(gpus),
            expected=n_at_once,
            remedy="lower --at-once, or look at CUDA_VISIBLE_DEVICES",
        )
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:n_at_once]]
