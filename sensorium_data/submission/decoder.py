"""The process that decodes foreign Parquet for :mod:`sensorium_data.submission.reader`.

It takes a request a line on standard input, JSON, and answers on standard output in frames: a byte says what follows.

``ABOUT``
    A line of JSON about the file, then its schema as an Arrow stream without batches.
``ROW``
    An Arrow stream of one batch: a row.
``ERROR``
    A line of JSON, the parts of a :class:`~sensorium_data.errors.SubmissionError`; the answer is over.
``END``
    The answer is over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from sensorium_data.errors import SubmissionError
from sensorium_data.submission.parquet import PredictionsFile
from sensorium_data.submission.section import FileSection

try:
    import fcntl
    import resource
except ImportError:  # Windows has neither; its process has no bound of memory.
    fcntl = resource = None  # type: ignore[assignment]

__all__ = ["ABOUT", "END", "ERROR", "ROW", "main"]

ABOUT, ROW, ERROR, END = b"A", b"R", b"E", b"."

# Linux lets anybody have pipes so large: fewer changes between the processes.
_PIPE_SIZE_BYTES = 1 << 20


def main(memory_bytes: int) -> None:
    """Answer requests until there are no more, with so much memory beyond what the libraries take."""
    # Ctrl-C reaches the parent too, which closes the pipes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory(memory_bytes)
    with os.fdopen(os.dup(1), "wb") as answers:
        _widen_pipe(answers.fileno())
        # What libraries print is no answer.
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            try:
                _answer(json.loads(line), answers)
                answers.flush()
            except BrokenPipeError:
                # Nobody wants the rest, nor what is left in the buffer.
                os._exit(0)


def _answer(request: Mapping[str, Any], answers: IO[bytes]) -> None:
    section = FileSection(Path(request["path"]), request["start"], request["size_bytes"])
    try:
        with PredictionsFile(section.open) as file:
            if request["columns"] is None:
                _send(answers, ABOUT, {"n_rows": file.n_rows, "codecs": file.codecs})
                pa.ipc.new_stream(answers, file.schema.remove_metadata()).close()
            else:
                for batch in file.iterate_rows(request["columns"]):
                    answers.write(ROW)
                    with pa.ipc.new_stream(answers, batch.schema) as stream:
                        stream.write_batch(batch)
        answers.write(END)
    except BrokenPipeError:
        raise
    except SubmissionError as error:
        parts = {"problem": error.problem, "found": error.found, "expected": error.expected, "remedy": error.remedy}
        _send(answers, ERROR, parts)
    except MemoryError as error:
        parts = {
            "problem": "decoding the file takes more memory than a submission needs",
            "found": _first_line(error),
            "expected": "no more than PARQUET_MEMORY_BYTES",
            "remedy": "write one row for each trial, and a row group for each row",
        }
        _send(answers, ERROR, parts)
    # Damaged files fail in any of these ways, according to which bytes are damaged.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        parts = {
            "problem": "the file cannot be read as Parquet",
            "found": _first_line(error),
            "remedy": "write it again, with pyarrow",
        }
        _send(answers, ERROR, parts)


def _send(answers: IO[bytes], kind: bytes, content: Mapping[str, Any]) -> None:
    answers.write(kind + json.dumps(content).encode() + b"\n")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _bound_memory(size_bytes: int) -> None:
    """Let this process take so much more memory than it has."""
    statistics = Path("/proc/self/statm")
    if resource is None or not statistics.exists():
        return
    present_bytes = int(statistics.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([present_bytes + size_bytes, *given]), hard))
    # A process that is ended by a hostile file leaves no image of its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _widen_pipe(descriptor: int) -> None:
    if fcntl is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE_BYTES)
        except OSError:
            return  # More than this user's share of pipes: it stays as it is.
