"""How exactly a store keeps what the archive holds: the profiles, their casts, and the error each makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

__all__ = ["Precision", "Rounding", "cast_values"]

_MANTISSA_BITS = 23

# Values cast at a time, so that the float64 differences stay in the processor's cache.
_VALUES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Rounding:
    """What is taken from float32 values so that they compress.

    Attributes
    ----------
    floor : float
        Smaller magnitudes become 0; the error is below this.
    keep_bits : int
        Bits of the mantissa that are kept, rounded to nearest, ties to even: a relative error of at most
        ``2 ** -(keep_bits + 1)``.
    step : float
        Values become multiples of this power of two: an absolute error of at most half of it. 0 leaves them.
    """

    floor: float = 0.0
    keep_bits: int = _MANTISSA_BITS
    step: float = 0.0


class Precision(StrEnum):
    """What a store keeps of the archive's float64 values; how far it is off is recorded with each variable.

    ``exact`` stores float32, and ``exact64`` the float64 values themselves. ``compact`` stores float32 too, rounded:
    videos to multiples of 1/16 of the 255 (off by at most 1/32), responses to 10 bits of the mantissa (off by at most
    0.05 %), with 0 for what is below the deconvolution's numerical floor of 1e-6; the rest as ``exact`` does.
    """

    EXACT = "exact"
    EXACT64 = "exact64"
    COMPACT = "compact"

    @property
    def dtype(self) -> str:
        """The dtype that the data variables and the archive's own statistics are stored in."""
        return "float64" if self is Precision.EXACT64 else "float32"

    def rounding_of(self, variable: str) -> Rounding | None:
        """Return how a data variable's values are rounded; ``None`` if they are not."""
        return _COMPACT.get(variable) if self is Precision.COMPACT else None


# Chosen by measurement (benchmarks/array_codecs.py): with the floor at 0 and 10 bits, zstd stores responses in a
# twelfth of the bytes of float32, and 7 bits would save an eighth of those; steps of 1/16 take as many as float16, at
# half its error.
_COMPACT = MappingProxyType({"responses": Rounding(floor=1e-6, keep_bits=10), "videos": Rounding(step=1 / 16)})


def cast_values(values: np.ndarray, stored: np.ndarray, rounding: Rounding | None = None) -> float:
    """Cast values into an array of the same shape and another floating dtype.

    Parameters
    ----------
    values : np.ndarray
        What the archive holds.
    stored : np.ndarray
        Filled. The faster its last axis runs in both, the better.
    rounding : Rounding, optional
        What to take from the values, if ``stored`` is float32.

    Returns
    -------
    float
        The largest absolute error among finite values; infinite where a finite value exceeds the range of ``stored``.
    """
    if values.size == 0:
        return 0.0
    if np.can_cast(values.dtype, stored.dtype) and rounding is None:
        stored[...] = values
        return 0.0
    per_row = max(1, values.size // len(values))
    n_rows = max(1, _VALUES_AT_ONCE // per_row)
    largest = 0.0
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        block, cast = values[rows], stored[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(cast, block, casting="unsafe")
            if rounding is not None:
                _round_block(cast, rounding)
            difference = np.subtract(block, cast)
        highest = max(float(difference.max()), -float(difference.min()))
        if not np.isfinite(highest):
            np.abs(difference, out=difference)
            # fmax passes over NaN, which the archive's own NaN and infinities leave in the difference.
            highest = float(np.fmax.reduce(difference[np.isfinite(block)], axis=None, initial=0.0))
        largest = max(largest, highest)
    return largest


def _round_block(block: np.ndarray, rounding: Rounding) -> None:
    """Round float32 values in place."""
    drop_bits = _MANTISSA_BITS - rounding.keep_bits
    if drop_bits > 0:
        bits = block.view(np.uint32)
        # Half of the last kept bit, less one where that bit is 0: ties go to even.
        rounded = bits >> np.uint32(drop_bits)
        rounded &= np.uint32(1)
        rounded += np.uint32((1 << (drop_bits - 1)) - 1)
        rounded += bits
        rounded &= np.uint32((0xFFFFFFFF << drop_bits) & 0xFFFFFFFF)
        # The bits of a NaN could carry over into those of a number.
        missing = np.isnan(block)
        np.copyto(bits, rounded, where=~missing if missing.any() else True)
    if rounding.floor > 0:
        block[np.abs(block) < rounding.floor] = 0
    if rounding.step > 0:
        # Powers of two scale without an error.
        block *= np.float32(1 / rounding.step)
        np.rint(block, out=block)
        block *= np.float32(rounding.step)
