"""A process that trains one run, as :mod:`flows.training.supervisor` starts it: ``-m flows.training.process PARENT``.

PARENT is the process id of whoever started it, with whom it dies. Standard input is a pipe with the job, which may come
later than the process, or not at all. Standard output takes :mod:`flows.training.messages`, and nothing else; what
libraries print goes to standard error. With several devices the process becomes torchrun, which starts this module
again once a device.

Nothing heavy is imported before the process is bound to its parent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flows.training.bound_process import bind_to_parent
from sensorium_data.machine import count_cores

if TYPE_CHECKING:
    from flows.reporting import NotedProgress
    from flows.training.job import TrainingJob
    from flows.training.messages import Messages

__all__ = ["GRACE_S", "main"]

#: How long a training that is asked to end may take to leave a checkpoint. Prefect's worker kills the process of a
#: flow run 30 s after it asked it to end: there has to be time left for the flow to say how it went.
GRACE_S = 20.0

# What a training comes to import, for the longest part when it first uses something of torch or xarray.
_IMPORTED_LATE = (
    "models.training.trainer",
    "models.training.training",
    "flows.training.job",
    "flows.training.progress",
    "lightning_fabric",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "dask.array",
    "distributed",
    "zarr",
)
_PARENT_POLL_S = 1.0
# Progress is for people: a pipe full of it helps nobody.
_PROGRESS_EVERY_S = 0.2


def main(arguments: list[str]) -> int:
    """Train the job on standard input, and return the exit status."""
    _die_with_parent(int(arguments[0]))
    # As the command line does, before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rank = os.environ.get("RANK")

    description = _read_file() if rank is not None else _read_pipe()
    if not description:
        # Nothing is to be trained.
        return 0

    from flows.training.job import TrainingJob
    from flows.training.messages import Messages
    from sensorium_data.errors import SensoriumError

    job = TrainingJob.model_validate_json(description)
    messages = Messages(1)
    try:
        if rank is None and job.n_devices > 1:
            _keep_as_file(description)
            _become_torchrun(job, messages)
        messages = Messages(_keep_stdout())
        if rank is None:
            with _devices(job, messages):
                _train(job, messages)
        else:
            _train(job, messages if rank == "0" else None)
    except SensoriumError as error:
        if os.environ.get("SENSORIUM_TRACEBACK"):
            # On standard error, before whoever listens knows the error and stops listening there.
            traceback.print_exception(error)
        messages.tell_error(error)
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    return 0


def _read_pipe() -> bytes:
    """Return what the parent writes; the time until then is used."""
    if not select.select([0], [], [], 0)[0]:
        _import_ahead()
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        return pipe.readall()


def _read_file() -> bytes:
    """Return what :func:`_keep_as_file` kept."""
    # By position: torchrun's processes share one file, and would share how far it has been read.
    return os.pread(0, os.fstat(0).st_size, 0)


def _keep_as_file(description: bytes) -> None:
    """Put a file in the place of standard input, for each of the processes that this one is about to start."""
    with tempfile.TemporaryFile() as file:
        file.write(description)
        file.flush()
        os.dup2(file.fileno(), 0)


def _import_ahead() -> None:
    """Import what every training does."""
    # Nothing that is imported is garbage, and looking for some takes a fifth of the time.
    gc.disable()
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def _train(job: TrainingJob, messages: Messages | None) -> None:
    """Train, and tell how it goes; with several devices, one of their processes is told of."""
    from flows.reporting import ignore_note
    from flows.training.job import train_here

    if messages is None:
        train_here(job, progress=ignore_note, on_epoch=lambda _metrics: None)
        return
    report = train_here(job, progress=_now_and_then(messages.tell_progress), on_epoch=messages.tell_epoch)
    messages.tell_report(report)


def _devices(job: TrainingJob, messages: Messages) -> contextlib.AbstractContextManager[list[int]]:
    """Return what holds the locks of the GPUs that a job takes, if it takes any."""
    from flows.settings import Settings
    from flows.training.device_lock import hold_devices, list_gpus
    from models.devices import choose_device

    uses_gpu = choose_device(job.config().device).type == "cuda"
    return hold_devices(
        list_gpus(job.n_devices) if uses_gpu else [],
        f"training {job.preset} in {job.runs if '://' in job.runs else Path(job.runs).absolute()}",
        folder=Path(Settings().locks),
        write_line=messages.tell_line,
    )


def _become_torchrun(job: TrainingJob, messages: Messages) -> NoReturn:
    """Go on as torchrun, under the same process id and with the locks of all devices."""
    with _devices(job, messages) as locks:
        for descriptor in locks:
            os.set_inheritable(descriptor, True)
        # torchrun would give each process one thread, and say so at length.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // job.n_devices)))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.n_devices}"]
        os.execv(sys.executable, [*command, "-m", "flows.training.process", str(os.getpid())])  # noqa: S606


def _keep_stdout() -> int:
    """Return a descriptor of standard output, and let everything else that is printed go to standard error."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


def _die_with_parent(parent: int) -> None:
    """End when the parent does, orderly if that can be done in time, and leave nothing that this process started."""
    is_told = bind_to_parent(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        if not is_told:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _now_and_then(progress: NotedProgress, *, clock: Callable[[], float] = time.monotonic) -> NotedProgress:
    """Return a progress that passes on what is first, what is complete, and something in between."""
    due_s: dict[str, float] = {}

    def bounded(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        now = clock()
        if n_done < n_total and now < due_s.get(label, now):
            return
        due_s[label] = now + _PROGRESS_EVERY_S
        if n_done >= n_total:
            # The label may begin anew.
            del due_s[label]
        progress(label, n_done, n_total, n_bytes=n_bytes, note=note)

    return bounded


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
