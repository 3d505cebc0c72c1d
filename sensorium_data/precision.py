"""How exactly a store keeps what the archive holds: the profiles, their casts, and the error each makes."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

__all__ = ["COMPACT_RESPONSE_BITS", "RESPONSE_FLOOR", "Precision", "cast_values"]

#: Responses below this in magnitude are the deconvolution's numerical floor: ``compact`` stores them as 0.
RESPONSE_FLOOR = 1e-6
#: Bits of the mantissa that ``compact`` keeps of a response: a relative error of at most 2 ** -(bits + 1).
COMPACT_RESPONSE_BITS = 10

_MANTISSA_BITS = 23

# Values cast at a time, so that the float64 differences stay in the processor's cache.
_VALUES_AT_ONCE = 1 << 16


class Precision(StrEnum):
    """What a store keeps of the archive's float64 values; how far it is off is recorded with each variable.

    ``exact`` stores float32, and ``exact64`` the float64 values themselves. ``compact`` stores videos as float16
    (off by at most 0.0625 of 255) and responses as float32 of which 10 bits of the mantissa are kept (off by at most
    0.05 %), with 0 for what is below the deconvolution's numerical floor of 1e-6; the rest as ``exact`` does.
    """

    EXACT = "exact"
    EXACT64 = "exact64"
    COMPACT = "compact"

    def dtype_of(self, variable: str) -> str:
        """Return the dtype that a data variable's trials are stored in."""
        if self is Precision.EXACT64:
            return "float64"
        return "float16" if self is Precision.COMPACT and variable == "videos" else "float32"

    @property
    def statistics_dtype(self) -> str:
        """The dtype that the archive's own statistics are stored in."""
        return "float64" if self is Precision.EXACT64 else "float32"


def cast_values(
    values: np.ndarray, stored: np.ndarray, *, floor: float = 0.0, keep_bits: int = _MANTISSA_BITS
) -> float:
    """Cast values into an array of the same shape and another floating dtype.

    Parameters
    ----------
    values : np.ndarray
        What the archive holds.
    stored : np.ndarray
        Filled. The faster its last axis runs in both, the better.
    floor : float
        Smaller magnitudes become 0.
    keep_bits : int
        Bits of the mantissa to keep, if ``stored`` is float32; rounded to nearest, ties to even.

    Returns
    -------
    float
        The largest absolute error among finite values; infinite where a finite value exceeds the range of ``stored``.
    """
    if values.size == 0:
        return 0.0
    changes = floor > 0 or keep_bits < _MANTISSA_BITS
    if np.can_cast(values.dtype, stored.dtype) and not changes:
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
            if changes:
                _round_block(cast, floor, keep_bits)
            difference = np.subtract(block, cast)
        highest = max(float(difference.max()), -float(difference.min()))
        if not np.isfinite(highest):
            np.abs(difference, out=difference)
            # fmax passes over NaN, which the archive's own NaN and infinities leave in the difference.
            highest = float(np.fmax.reduce(difference[np.isfinite(block)], axis=None, initial=0.0))
        largest = max(largest, highest)
    return largest


def _round_block(block: np.ndarray, floor: float, keep_bits: int) -> None:
    """Set small values to 0 and round the mantissas of the others, in place."""
    drop_bits = _MANTISSA_BITS - keep_bits
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
    if floor > 0:
        block[np.abs(block) < floor] = 0
