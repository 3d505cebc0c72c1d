"""What the drifting Gabor patches of a trial show, recovered from its frames.

The archives do not say which direction a patch drifts in. A patch is a grating under a Gaussian window: its spatial
frequency is where the Fourier transform of its frames has the most power, and the phase there moves with time, backward
for a pattern that drifts along that frequency.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.blocks import TrialBlock, map_blocks, name_movies
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.schema import FRAME_RATE_HZ
from sensorium_data.sessions import Stimulus

__all__ = ["GABOR_BLOCK_FRAMES", "N_DIRECTIONS", "GaborPatch", "recover_gabor", "tabulate_gabors"]

#: How long each patch is shown.
GABOR_BLOCK_FRAMES = 25
#: The directions of drift are multiples of 45°.
N_DIRECTIONS = 8

# On the 30 Hz grid a patch may begin a frame late.
_N_EDGE_FRAMES = 2
_LEAST_BLOCK_FRAMES = 8
# Cycles a pixel. Slower than this is the window's own spectrum, faster is aliased.
_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.025, 0.45
_FFT_SIZE = 128
# A patch of less contrast (std of luminance over all pixels and frames) is none.
_LEAST_CONTRAST = 1.0

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class GaborPatch:
    """What one block of frames shows.

    Attributes
    ----------
    direction : float
        Direction of drift in degrees, 0 to 360: 0 to the right, 90 downward, as the rows of the video count.
    spatial_frequency : float
        Cycles a pixel.
    temporal_frequency : float
        Hz.
    """

    direction: float
    spatial_frequency: float
    temporal_frequency: float


def recover_gabor(frames: Floats) -> GaborPatch | None:
    """Return what drifting grating a few frames show.

    Parameters
    ----------
    frames : np.ndarray
        (time, height, width), luminance.

    Returns
    -------
    GaborPatch or None
        None where the frames show nothing, or nothing that drifts.

    Examples
    --------
    >>> columns, time = np.arange(64), np.arange(25)[:, None, None]
    >>> frames = np.cos(2 * np.pi * (columns / 8 - time / 15)) * np.full((25, 36, 64), 50.0)
    >>> patch = recover_gabor(frames)
    >>> round(patch.direction) % 360, round(1 / patch.spatial_frequency, 1), round(patch.temporal_frequency, 1)
    (0, 8.0, 2.0)
    """
    values = np.asarray(frames, np.float64)
    if len(values) < _LEAST_BLOCK_FRAMES or not np.isfinite(values).all():
        return None
    # The most common level is the gray around a patch; a median is close to it.
    values = values - np.median(values)
    if values.std() < _LEAST_CONTRAST:
        return None
    spectrum = np.fft.rfft2(values, s=(_FFT_SIZE, _FFT_SIZE))
    power = (np.abs(spectrum) ** 2).mean(axis=0)
    vertical, horizontal, is_candidate = _frequency_grid()
    power = np.where(is_candidate, power, 0.0)
    row, column = np.unravel_index(int(power.argmax()), power.shape)
    # The center of the peak lies between the points of the grid.
    near = np.hypot(vertical - vertical[row, column], horizontal - horizontal[row, column]) < 2.5 / _FFT_SIZE
    weights = np.where(near & (power >= power[row, column] / 4), power, 0.0)
    wave = np.array([(weights * axis).sum() for axis in (vertical, horizontal)]) / weights.sum()
    amplitudes = _project(values, wave)
    steps = np.angle(amplitudes[1:] * np.conj(amplitudes[:-1]))
    strength = np.abs(amplitudes[1:]) * np.abs(amplitudes[:-1])
    if not strength.sum() > 0:
        return None
    # A late frame repeats the one before it, and the next phase step is twice as long: their mean is right.
    rate = float((strength * steps).sum() / strength.sum()) / (2 * np.pi) * FRAME_RATE_HZ
    if rate == 0:
        return None
    # cos(k x - w t) has the phase -w t at k.
    heading = wave if rate < 0 else -wave
    direction = float(np.degrees(np.arctan2(heading[0], heading[1]))) % 360.0
    return GaborPatch(direction, float(np.hypot(*wave)), abs(rate))


def tabulate_gabors(dataset: xr.Dataset, *, jobs: int | None = None) -> pd.DataFrame:
    """Return what the Gabor trials of a session show, block by block. Their videos are read.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    pandas.DataFrame
        A row for each 25 frames of each valid trial: ``trial`` (id), ``block`` (from 0), ``first_frame``, ``movie``
        (``movie_group`` where the dataset has it), ``direction`` (degrees: the nearest multiple of 45; 0 to the right,
        90 downward), ``measured_direction``, ``spatial_frequency`` (cycles a pixel) and ``temporal_frequency`` (Hz).
        NaN where a block shows no drifting grating.

    Raises
    ------
    UsageError
        If the dataset has no valid trial of Gabor patches.
    """
    dataset = arrange_session(dataset, "stimulus", "valid", "movie", unique=["trial"])
    positions = np.flatnonzero((dataset["stimulus"].values == str(Stimulus.GABOR)) & dataset["valid"].values)
    if len(positions) == 0:
        raise UsageError(
            "no trial shows Gabor patches",
            session=session_name(dataset),
            found=", ".join(sorted(set(dataset["stimulus"].values.astype(str).tolist()))) or "no trial",
            expected=str(Stimulus.GABOR),
            remedy="take a session whose bonus tiers show them: B, C, E, G, I or J",
        )
    dataset = arrange_session(dataset, "videos", whole_start=True)
    movies = name_movies(dataset)

    def recover(block: TrialBlock) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for number in range(block.n_frames // GABOR_BLOCK_FRAMES):
            first = number * GABOR_BLOCK_FRAMES
            inner = block.videos[first + _N_EDGE_FRAMES : first + GABOR_BLOCK_FRAMES - _N_EDGE_FRAMES + 1]
            patch = recover_gabor(inner)
            measured = np.nan if patch is None else patch.direction
            step = 360.0 / N_DIRECTIONS
            rows.append(
                {
                    "trial": block.trial,
                    "block": number,
                    "first_frame": first,
                    "movie": movies[block.position],
                    "direction": np.nan if patch is None else round(measured / step) * step % 360.0,
                    "measured_direction": measured,
                    "spatial_frequency": np.nan if patch is None else patch.spatial_frequency,
                    "temporal_frequency": np.nan if patch is None else patch.temporal_frequency,
                }
            )
        return rows

    return pd.DataFrame(
        [row for rows in map_blocks(dataset, positions, ["videos"], recover, jobs=jobs) for row in rows]
    )


def _project(values: Floats, wave: Floats) -> npt.NDArray[np.complex128]:
    """Return the Fourier coefficient of each frame at one spatial frequency, (time,)."""
    rows = np.exp(-2j * np.pi * wave[0] * np.arange(values.shape[1]))
    columns = np.exp(-2j * np.pi * wave[1] * np.arange(values.shape[2]))
    projected: npt.NDArray[np.complex128] = np.einsum("thw,h,w->t", values, rows, columns, optimize=True)
    return projected


@lru_cache(maxsize=1)
def _frequency_grid() -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return the vertical and horizontal frequency of each Fourier coefficient, and where a grating's may be."""
    vertical, horizontal = np.meshgrid(np.fft.fftfreq(_FFT_SIZE), np.fft.rfftfreq(_FFT_SIZE), indexing="ij")
    radius = np.hypot(vertical, horizontal)
    return vertical, horizontal, (radius >= _LOWEST_FREQUENCY) & (radius <= _HIGHEST_FREQUENCY)
