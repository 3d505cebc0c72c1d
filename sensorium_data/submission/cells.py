"""What a row's cells say, of whatever type their columns are: labels, predicted values, unit ids."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["MISSING", "MISSING_NEURONS", "Prediction", "read_label", "read_neurons", "read_prediction"]

#: How :func:`read_prediction` and :func:`read_neurons` call what is null.
MISSING, MISSING_NEURONS = "a prediction is missing", "neuron ids are missing"

# More of a label than this helps nobody.
_MAX_LABEL_SIZE = 200


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction as it stands in a file.

    Attributes
    ----------
    n_frames : np.ndarray or None
        Length of each neuron's list; None if the cell is no list of lists.
    values : np.ndarray
        All values, one after the other, NaN where one is null. Floats of the file's precision; float64 where the file
        holds something else.
    value_type : pyarrow.DataType
        The file's type of a value.
    n_null : int
        How many values are null.
    is_exact : bool
        Whether ``values`` are to the last bit what the file holds.
    """

    n_frames: npt.NDArray[np.int64] | None
    values: npt.NDArray[np.floating]
    value_type: pa.DataType
    n_null: int
    is_exact: bool

    @property
    def shape(self) -> tuple[int, int] | None:
        """(neurons, frames), None if the neurons have different numbers of frames."""
        if self.n_frames is None or (self.n_frames != self.n_frames[:1]).any():
            return None
        return self.n_frames.size, int(self.n_frames[0]) if self.n_frames.size else 0


def read_label(cell: pa.Scalar) -> object:
    """Return a label as plain Python: text that is stored as bytes is decoded, whole floats are integers.

    An index with gaps makes pandas write floats.
    """
    try:
        value: object = cell.as_py()
    # Text that is no UTF-8, and times that Python has no type for.
    except (ValueError, OverflowError, NotImplementedError, pa.ArrowException):
        buffer = cell.as_buffer() if hasattr(cell, "as_buffer") else None
        value = buffer.to_pybytes() if buffer is not None else str(cell.type)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, int | float | str):
        return value[:_MAX_LABEL_SIZE] if isinstance(value, str) else value
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)[:_MAX_LABEL_SIZE]


def read_prediction(cell: pa.Scalar) -> Prediction | str:
    """Return a prediction, or why it is none."""
    lists = _list_of(cell)
    if lists is None:
        return MISSING if not cell.is_valid else "the prediction is no list of lists"
    if not _is_list(lists.type):
        numbers = _read_numbers(lists)
        return Prediction(None, *numbers) if numbers is not None else "the prediction is no list of lists"
    if lists.null_count:
        return MISSING
    n_frames = np.asarray(pc.list_value_length(lists).to_numpy(zero_copy_only=False), np.int64)
    numbers = _read_numbers(lists.flatten())
    return Prediction(n_frames, *numbers) if numbers is not None else "the predicted values are no numbers"


def read_neurons(cell: pa.Scalar) -> npt.NDArray[np.integer] | str:
    """Return unit ids, or why they are none. Integers are of the file's type, which may hold more than int64 does."""
    ids = _list_of(cell)
    if ids is None:
        return MISSING_NEURONS if not cell.is_valid else "the neuron ids are no list"
    if ids.null_count:
        return MISSING_NEURONS
    if not pa.types.is_integer(ids.type):
        if pa.types.is_boolean(ids.type):
            return "the neuron ids are no integers"
        try:
            ids = ids.cast(pa.int64())
        except pa.ArrowException:
            return "the neuron ids are no integers"
    integers: npt.NDArray[np.integer] = ids.to_numpy(zero_copy_only=False)
    return integers


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _list_of(cell: pa.Scalar) -> pa.Array | None:
    return cell.values if _is_list(cell.type) else None


def _read_numbers(array: pa.Array) -> tuple[npt.NDArray[np.floating], pa.DataType, int, bool] | None:
    """Return values, their type, how many are null, and whether they are exact; None if they are no numbers."""
    type_ = array.type
    if pa.types.is_floating(type_):
        values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values, type_, array.null_count, True
    try:
        # Fails for integers that float64 does not hold.
        floats, is_exact = array.cast(pa.float64()), pa.types.is_integer(type_)
    except pa.ArrowException:
        if not pa.types.is_integer(type_):
            return None
        floats, is_exact = array.cast(pa.float64(), safe=False), False
    return floats.to_numpy(zero_copy_only=False), type_, array.null_count, is_exact
