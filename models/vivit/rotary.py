"""Positions as rotations of what attention compares.

Shape suffixes: X independent rows of attention, H heads, L tokens, D numbers of a head.
"""

from __future__ import annotations

import torch

__all__ = ["RotaryPositions", "rotary_frequencies", "rotary_scales"]

_BASE = 10_000.0
_SCALE_STEPS = 512
# Where the scale begins and what it is shared by, as multiples of the head's size.
_OFFSET, _SPAN = 0.4, 1.4


def rotary_frequencies(head_size: int) -> torch.Tensor:
    """Return the angle by which each pair of a head's numbers turns from one token to the next, in float64.

    Examples
    --------
    >>> rotary_frequencies(4).tolist()
    [1.0, 0.01]
    """
    return _BASE ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)


def rotary_scales(head_size: int) -> torch.Tensor:
    """Return the base of each pair's scale, in float64."""
    pairs = torch.arange(0, head_size, 2, dtype=torch.float64)
    return (pairs + _OFFSET * head_size) / (_SPAN * head_size)


class RotaryPositions:
    """Turns queries and keys by the place of their token, and scales them.

    Pair j of token t, the numbers j and j + D/2, turns by ``t * 10000**(-2j/D)`` and is multiplied with
    ``((2j + 0.4 D) / (1.4 D)) ** ((t - m) / 512)``, m being the middle. The scale is applied to queries
    and keys alike, as ViV1T does it: what attention compares depends on where both are, and not on their distance
    alone. (xPos, Sun et al. 2022, arXiv 2212.10554, divides keys by it.)

    Parameters
    ----------
    n_tokens : int
        That have a place, the first ones of a row.
    middle : int
        The token whose scale is 1.
    head_size : int
        Even.
    device, dtype
        Of the tables.
    """

    def __init__(self, n_tokens: int, middle: int, head_size: int, *, device: torch.device, dtype: torch.dtype) -> None:
        frequencies_D, bases_D = rotary_frequencies(head_size), rotary_scales(head_size)
        places_L1 = torch.arange(n_tokens, dtype=torch.float64)[:, None]
        angles_LD = (places_L1 * frequencies_D).repeat(1, 2)
        scales_LD = (bases_D ** ((places_L1 - middle) / _SCALE_STEPS)).repeat(1, 2)
        # In double precision on the CPU: an angle of hundreds of turns keeps its digits.
        half = head_size // 2
        sines_LD = angles_LD.sin() * scales_LD
        self.cosines_LD = (angles_LD.cos() * scales_LD).to(device, dtype)
        # Signed, so that the halves are swapped and not negated.
        self.sines_LD = torch.cat([-sines_LD[:, :half], sines_LD[:, half:]], dim=1).to(device, dtype)

    def turn(self, values_XHLD: torch.Tensor) -> torch.Tensor:
        """Return queries or keys, those with a place turned; registers, which come after, stay as they are."""
        n_placed = len(self.cosines_LD)
        placed_XHLD = values_XHLD[:, :, :n_placed]
        swapped_XHLD = placed_XHLD.roll(values_XHLD.shape[3] // 2, dims=3)
        turned_XHLD = (placed_XHLD * self.cosines_LD + swapped_XHLD * self.sines_LD).to(values_XHLD.dtype)
        if n_placed == values_XHLD.shape[2]:
            return turned_XHLD
        return torch.cat([turned_XHLD, values_XHLD[:, :, n_placed:]], dim=2)
