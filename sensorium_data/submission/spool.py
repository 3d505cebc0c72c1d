"""Rows of predictions files on their way into another order: kept on the disk, because they do not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from sensorium_data.files import create_file
from sensorium_data.frames import FloatType
from sensorium_data.sessions import Session
from sensorium_data.submission.writer import SubmissionRow

__all__ = ["RowSpool", "SpooledRow"]


@dataclass(frozen=True, eq=False)
class SpooledRow:
    """Where a row's values lie, and its labels.

    Attributes
    ----------
    session : Session
        The session.
    trial : int
        The trial's id.
    neurons : np.ndarray
        Unit ids, as the row gives them.
    shape : tuple of int
        (neurons, frames) of the values.
    float_type : str
        Of the values.
    offset : int
        Where they begin in the spool.
    digest : bytes
        Of values and unit ids: equal rows have equal ones.
    """

    session: Session
    trial: int
    neurons: npt.NDArray[np.int64]
    shape: tuple[int, int]
    float_type: FloatType
    offset: int
    digest: bytes

    @property
    def sort_key(self) -> tuple[Session, int]:
        """Where the row belongs in a file."""
        return self.session, self.trial


class RowSpool:
    """A temporary file of rows' values, as large as all values together. It is gone when the context ends.

    Parameters
    ----------
    path : Path
        Where it lies meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def add(
        self, session: Session, trial: int, values: npt.NDArray[np.floating], neurons: npt.NDArray[np.int64]
    ) -> SpooledRow:
        """Keep a row: values (neuron, frame) of float32 or float64."""
        float_type: FloatType = "float32" if values.dtype == np.float32 else "float64"
        data = np.ascontiguousarray(values, float_type)
        ids = np.ascontiguousarray(neurons, np.int64)
        digest = hashlib.blake2b(data.view(np.uint8).reshape(-1).data)
        digest.update(repr(data.shape).encode())
        digest.update(ids.tobytes())
        offset = self._open.tell()
        self._open.write(data.reshape(-1).view(np.uint8).data)
        return SpooledRow(session, trial, ids, (data.shape[0], data.shape[1]), float_type, offset, digest.digest())

    def read(self, rows: list[SpooledRow]) -> Iterator[SubmissionRow]:
        """Yield rows as they are to be written."""
        self._open.flush()
        with self._path.open("rb") as file:
            for row in rows:
                file.seek(row.offset)
                values = np.fromfile(file, row.float_type, row.shape[0] * row.shape[1]).reshape(row.shape)
                yield SubmissionRow(row.session.name, row.trial, values, row.neurons)

    @property
    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the spool is used inside its with statement")
        return self._file

    def __enter__(self) -> Self:
        self._file = create_file(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()
        self._path.unlink(missing_ok=True)
