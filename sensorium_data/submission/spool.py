"""Rows of predictions files on their way into another order: kept on the disk, because they do not fit in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

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
    """A temporary file of rows' values, as large as all values together.

    It has no name: it is gone when the context ends, or its process is killed.

    Parameters
    ----------
    folder : Path
        On whose disk it lies meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BufferedRandom | None = None

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
        offset = self._open.seek(0, os.SEEK_END)
        self._open.write(data.reshape(-1).view(np.uint8).data)
        return SpooledRow(session, trial, ids, (data.shape[0], data.shape[1]), float_type, offset, digest.digest())

    def read(self, rows: list[SpooledRow]) -> Iterator[SubmissionRow]:
        """Yield rows as they are to be written."""
        for row in rows:
            values = np.empty(row.shape, row.float_type)
            self._open.seek(row.offset)
            if self._open.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:
                raise OSError(errno.EIO, "fewer bytes in the temporary file than were written", str(self._folder))
            yield SubmissionRow(row.session.name, row.trial, values, row.neurons)

    @property
    def _open(self) -> BufferedRandom:
        if self._file is None:
            raise ValueError("the spool is used inside its with statement")
        return self._file

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()
