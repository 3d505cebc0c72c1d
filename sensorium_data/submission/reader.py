"""Reading foreign Parquet in a process of its own: what ends or fills that process does not end the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self, cast

import pyarrow as pa

from sensorium_data.errors import SubmissionError, describe_os_error
from sensorium_data.limits import PARQUET_MEMORY_BYTES
from sensorium_data.submission.decoder import ABOUT, END, ERROR, ROW
from sensorium_data.submission.section import FileSection

__all__ = ["ForeignPredictions", "ParquetReader", "parquet_reader"]

# The same modules as here, wherever they were found.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from sensorium_data.submission.decoder import main; main(int(sys.argv[1]))"
)
# It needs no threads for arithmetic, whose buffers would count as its memory. The system's allocator keeps to bounds.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_LAST_WORDS_BYTES = 4096


class ParquetReader:
    """Reads Parquet files in another process, which begins with the first file and ends with the block.

    A file that makes the process crash is refused; the next file gets a new process.

    Parameters
    ----------
    memory_bytes : int
        What the process may take beyond its libraries.

    See Also
    --------
    parquet_reader : the reader of a command, which is what to use.
    """

    def __init__(self, memory_bytes: int = PARQUET_MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def open(self, section: FileSection) -> ForeignPredictions:
        """Open a file.

        Raises
        ------
        SubmissionError
            If it cannot be read, is encrypted, or is larger than anything that could be a submission.
        """
        with self._asked(section, None) as answer:
            about = answer.read_line(ABOUT)
            schema = answer.read_stream().schema
            answer.end()
        return ForeignPredictions(self, section, schema, about["n_rows"], tuple(about["codecs"]))

    def iterate_rows(self, section: FileSection, columns: Sequence[str]) -> Iterator[pa.StructScalar]:
        """Yield a file's rows; see :meth:`ForeignPredictions.iterate_rows`."""
        with self._asked(section, columns) as answer:
            while answer.has_row():
                for batch in answer.read_stream().to_batches():
                    yield from batch.to_struct_array()

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        errors, self._errors = self._errors, None
        if process is not None:
            process.kill()
            # Leaving the block closes the pipes, and waits. A request may be left that nobody reads.
            with contextlib.suppress(BrokenPipeError), process:
                pass
        if errors is not None:
            errors.close()

    @contextlib.contextmanager
    def _asked(self, section: FileSection, columns: Sequence[str] | None) -> Iterator[_Answer]:
        """Send a request, and give the answer, which is read whole or ends with an error of its own."""
        if self._process is None:
            self._start()
        request = {
            "path": os.path.abspath(section.path),
            "start": section.start,
            "size_bytes": section.size_bytes,
            "columns": columns if columns is None else list(columns),
        }
        process = cast("subprocess.Popen[bytes]", self._process)
        try:
            try:
                stdin = cast("IO[bytes]", process.stdin)
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
            except BrokenPipeError:
                raise self._describe_end() from None
            yield _Answer(cast("io.BufferedReader", process.stdout), self._describe_end)
        except SubmissionError:
            raise
        except BaseException:
            # The rest of the answer is still on the way.
            self.close()
            raise

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process runs)
        try:
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, with our own program)
                [sys.executable, "-c", _PROGRAM, str(self._memory_bytes), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | _ENVIRONMENT,
            )
        except OSError as error:
            self.close()
            raise SubmissionError(
                "the process that reads Parquet cannot be started",
                found=describe_os_error(error),
                remedy="let this user have more processes or more memory",
            ) from error

    def _describe_end(self) -> SubmissionError:
        """Return what to say of a process that has ended in the middle of an answer."""
        process, errors = cast("subprocess.Popen[bytes]", self._process), cast("IO[bytes]", self._errors)
        # It has closed its pipe, so it has ended or is about to; what it sent wrongly may have closed it as well.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        status = process.poll()
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - _LAST_WORDS_BYTES))
        lines = errors.read().decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        self.close()
        cause = f"status {status}"
        if status is not None and status < 0:
            cause = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return SubmissionError(
            "reading the file makes the Parquet library crash",
            found=f"{cause}{f' ({said})' if said else ''}",
            remedy="write it again, with pyarrow and without encryption",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class ForeignPredictions:
    """A predictions file that anybody may have written. Made by :meth:`ParquetReader.open`.

    Attributes
    ----------
    schema : pyarrow.Schema
        The columns.
    n_rows : int
        Number of rows, as the file's metadata claim.
    codecs : tuple of str
        Names of the codecs of the submission's columns.
    """

    _reader: ParquetReader
    _section: FileSection
    schema: pa.Schema
    n_rows: int
    codecs: tuple[str, ...]

    def iterate_rows(self, columns: Sequence[str]) -> Iterator[pa.StructScalar]:
        """Yield the rows, each with its cells by column name; a few are in memory at a time.

        Of columns of one name the first is read.

        Raises
        ------
        SubmissionError
            If the rest cannot be read.
        """
        return self._reader.iterate_rows(self._section, columns)


class _Answer:
    """What the process sends upon a request."""

    def __init__(self, stream: io.BufferedReader, describe_end: Callable[[], SubmissionError]) -> None:
        self._stream = stream
        self._describe_end = describe_end

    def read_line(self, kind: bytes) -> dict[str, Any]:
        """Read a frame of a line of JSON."""
        found = self._read_kind()
        if found != kind:
            raise self._describe_end()
        return self._read_json()

    def has_row(self) -> bool:
        """Whether a row follows; the answer is over if none does."""
        found = self._read_kind()
        if found not in (ROW, END):
            raise self._describe_end()
        return found == ROW

    def end(self) -> None:
        """Read the end."""
        if self.has_row():
            raise self._describe_end()

    def read_stream(self) -> pa.Table:
        """Read an Arrow stream."""
        try:
            return pa.ipc.open_stream(self._stream).read_all()
        except (pa.ArrowException, OSError) as error:
            raise self._describe_end() from error

    def _read_kind(self) -> bytes:
        kind = self._stream.read(1)
        if kind == ERROR:
            raise SubmissionError(**self._read_json())
        return kind

    def _read_json(self) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", json.loads(self._stream.readline()))
        except ValueError:
            raise self._describe_end() from None


_current: ContextVar[ParquetReader | None] = ContextVar("parquet_reader", default=None)


@contextlib.contextmanager
def parquet_reader() -> Iterator[ParquetReader]:
    """Give the reader of the enclosing block, or a new one that ends with this block: one process for a command."""
    present = _current.get()
    if present is not None:
        yield present
        return
    with ParquetReader() as reader:
        token = _current.set(reader)
        try:
            yield reader
        finally:
            _current.reset(token)
