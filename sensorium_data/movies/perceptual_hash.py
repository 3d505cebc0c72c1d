"""A hash of what a video looks like, by which DwiseNeuro's reference divides trials into folds.

Perceptual hashes are those of ``imagehash.phash``: of a picture that is shrunk to 32 × 32 pixels, the lowest 8 × 8
frequencies, each above or below their median. Shrinking is Pillow's, with Lanczos windows, in whole numbers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from sensorium_data.errors import UsageError

__all__ = ["N_HASHED_FRAMES", "choose_hashed_frames", "hash_picture", "hash_video"]

#: Of each video.
N_HASHED_FRAMES = 5
_SIDE = 32
_N_FREQUENCIES = 8
#: Zeros of the Lanczos window on each side, and the bits of weights that are whole numbers.
_LANCZOS_SUPPORT = 3.0
_WEIGHT_BITS = 22


def choose_hashed_frames(n_frames: int) -> range:
    """Return the frames of a video that are hashed: five of them, at even distances.

    Raises
    ------
    UsageError
        If there are fewer.
    """
    if n_frames < N_HASHED_FRAMES:
        raise UsageError(
            "the video is too short to be hashed", found=f"{n_frames} frames", expected=f"at least {N_HASHED_FRAMES}"
        )
    step = n_frames // N_HASHED_FRAMES
    return range(step // 2, n_frames, step)[:N_HASHED_FRAMES]


def hash_video(frames: np.ndarray) -> int:
    """Return the hash of a video: those of its frames, bit by bit the sum modulo 2.

    Frames that are the same cancel each other in pairs.

    Parameters
    ----------
    frames : ndarray, shape (frame, height, width)
        Those that :func:`choose_hashed_frames` names; luminance, cut to whole numbers from 0 to 255.

    Returns
    -------
    int
        Of 64 bits.
    """
    combined = 0
    for frame in frames:
        combined ^= hash_picture(frame.astype(np.uint8))
    return combined


def hash_picture(picture: np.ndarray) -> int:
    """Return the perceptual hash of a picture, (height, width) of uint8; the first bit is the highest.

    Of a picture of one color all frequencies but the mean are 0: its hash is that of the mean alone.
    """
    small = _shrink(_shrink(picture, axis=1), axis=0).astype(np.float64)
    cosines = _cosines()
    frequencies = (cosines @ small @ cosines.T).ravel()
    # Rounding errors of what is 0 are no pattern.
    frequencies = np.round(frequencies, 6)
    bits = frequencies > np.median(frequencies)
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _shrink(picture: np.ndarray, axis: int) -> np.ndarray:
    """Return the picture with 32 pixels along an axis, rounded to uint8 as Pillow does after each axis."""
    weights = _lanczos_weights(picture.shape[axis])
    sums = np.tensordot(weights, picture.astype(np.int64), axes=(1, axis))
    rounded: np.ndarray = np.clip((sums + (1 << (_WEIGHT_BITS - 1))) >> _WEIGHT_BITS, 0, 255).astype(np.uint8)
    return np.moveaxis(rounded, 0, axis)


@cache
def _lanczos_weights(n_pixels: int) -> np.ndarray:
    """Return (32, pixel): what each pixel of a side counts in each of the shrunk side's, times 2 ** 22."""
    scale = n_pixels / _SIDE
    # A side that grows is not smoothed.
    width = max(scale, 1.0)
    support = _LANCZOS_SUPPORT * width
    weights = np.zeros((_SIDE, n_pixels), dtype=np.int64)
    for place in range(_SIDE):
        center = (place + 0.5) * scale
        first, last = max(0, int(center - support + 0.5)), min(n_pixels, int(center + support + 0.5))
        values = [_lanczos((pixel - center + 0.5) / width) for pixel in range(first, last)]
        total = sum(values)
        for pixel, value in zip(range(first, last), values, strict=True):
            share = value / total * (1 << _WEIGHT_BITS)
            weights[place, pixel] = int(share + math.copysign(0.5, share))
    return weights


def _lanczos(distance: float) -> float:
    if distance == 0:
        return 1.0
    if abs(distance) >= _LANCZOS_SUPPORT:
        return 0.0
    angle = math.pi * distance
    return math.sin(angle) / angle * math.sin(angle / _LANCZOS_SUPPORT) / (angle / _LANCZOS_SUPPORT)


@cache
def _cosines() -> np.ndarray:
    """Return (8, 32): the lowest frequencies of the discrete cosine transform of type II."""
    places = np.arange(_SIDE) + 0.5
    cosines: np.ndarray = 2 * np.cos(math.pi * np.arange(_N_FREQUENCIES)[:, None] * places / _SIDE)
    return cosines
