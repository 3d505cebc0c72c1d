"""Where in a window a value is: sines and cosines that are added to the channels."""

from __future__ import annotations

import math

import torch

__all__ = ["encode_positions", "list_frequencies"]


def encode_positions(n_channels: int, size: tuple[int, int, int], device: torch.device | None = None) -> torch.Tensor:
    """Return what is added to a map of so many channels.

    Each axis has an equal share of the channels, rounded up to an even number: the sines of all frequencies, then their
    cosines. Those of time, height and width follow each other, and what exceeds the channels is cut.

    Parameters
    ----------
    n_channels : int
        Of the map.
    size : tuple of int
        Frames, height and width.
    device : torch.device, optional
        Where.

    Returns
    -------
    Tensor, shape (time, height, width, channel)
        float32.
    """
    frequencies = list_frequencies(n_channels).to(device)
    parts = []
    for axis, n_places in enumerate(size):
        angles = torch.arange(n_places, dtype=torch.float32, device=device)[:, None] * frequencies
        shape = [1, 1, 1, -1]
        shape[axis] = n_places
        parts.append(torch.cat((angles.sin(), angles.cos()), dim=1).view(shape).expand(*size, -1))
    return torch.cat(parts, dim=3)[..., :n_channels]


def list_frequencies(n_channels: int) -> torch.Tensor:
    """Return the frequencies of one axis in radians a place, for a map of so many channels; float32."""
    n_of_axis = 2 * math.ceil(n_channels / 6)
    return 1.0 / (10_000 ** (torch.arange(0, n_of_axis, 2, dtype=torch.float32) / n_of_axis))
