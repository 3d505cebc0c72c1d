"""Perceptual hashes of pictures and videos, against imagehash 4.3.2 with Pillow 13.0 and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dct

from sensorium_data.errors import UsageError
from sensorium_data.movies.perceptual_hash import choose_hashed_frames, hash_picture, hash_video


def picture(kind: str) -> np.ndarray:
    """A picture of a recording's size."""
    rows, columns = np.mgrid[:36, :64]
    match kind:
        case "grating":
            return np.round(127.5 + 100 * np.sin(0.3 * rows + 0.2 * columns)).astype(np.uint8)
        case "disc":
            return np.where((rows - 12) ** 2 + (columns - 40) ** 2 < 90, 250, 20).astype(np.uint8)
        case "noise":
            return np.random.default_rng(0).integers(0, 256, (36, 64)).astype(np.uint8)
    return np.full((36, 64), 127, np.uint8)


#: ``imagehash.phash(PIL.Image.fromarray(picture))``.
KNOWN = {
    "grating": "adf8adf852075207",
    "disc": "93936c6d636c6c64",
    "noise": "cba1a7a06e29a7a6",
    "gray": "8000000000000000",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_pictures_hash_is_that_of_imagehash(kind: str) -> None:
    assert f"{hash_picture(picture(kind)):016x}" == KNOWN[kind]


def test_a_picture_of_the_hashs_own_size_is_not_shrunk() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32)).astype(np.uint8)
    frequencies = dct(dct(pixels.astype(float), axis=0), axis=1)[:8, :8]
    bits = (frequencies > np.median(frequencies)).ravel()
    assert hash_picture(pixels) == int("".join(map(str, bits.astype(int))), 2)


@pytest.mark.parametrize(
    ("n_frames", "frames"), [(300, [30, 90, 150, 210, 270]), (5, [0, 1, 2, 3, 4]), (324, [32, 96, 160, 224, 288])]
)
def test_five_frames_are_hashed_from_half_a_step_on(n_frames: int, frames: list[int]) -> None:
    assert list(choose_hashed_frames(n_frames)) == frames


def test_equal_frames_cancel_each_other_and_luminance_is_cut() -> None:
    noise, disc = picture("noise"), picture("disc")
    assert hash_video(np.stack([noise] * 5)) == hash_picture(noise)
    assert hash_video(np.stack([noise, disc, noise, disc, disc])) == hash_picture(disc)
    assert hash_video(noise[None].astype(np.float32) + 0.9) == hash_picture(noise)


def test_a_video_that_is_too_short_is_refused() -> None:
    with pytest.raises(UsageError, match="too short to be hashed: found 4 frames"):
        choose_hashed_frames(4)
