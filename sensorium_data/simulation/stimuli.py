"""The six classes of stimuli, as luminance movies of 36 × 64 pixels at 30 Hz.

Suffixes of array names: T time, H height, W width, D dots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Stimulus
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.random_streams import random_stream

__all__ = ["GABOR_N_FRAMES", "list_gabors", "render_movie", "resample_repeat"]

#: How long each Gabor patch is shown.
GABOR_N_FRAMES = 25

#: Luminance between images and around patches; not an integer, as hardly anything is in the recordings.
_GRAY = 127.43

_TEXTURE_SIZE = 128
# Against the contrast of movies, as those of the other classes: each class drives the neurons on average as much as
# the recorded ones.
_IMAGE_CONTRAST = 0.81
_CLIP_N_FRAMES = (30, 90)
# At most this share of a repeat's frames differs from the movie's, so two repeats differ in at most twice as many.
_MOST_FRAMES_DIFFERENT = 0.1


def render_movie(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Render a movie.

    The same movie and seed always give the same frames, also where fewer of them are asked for.

    Parameters
    ----------
    movie : Movie
        What to show.
    n_frames : int
        How many frames.
    seed : int
        Of the simulation.

    Returns
    -------
    np.ndarray
        (time, 36, 64) float32, luminance in [0, 255].
    """
    video = _RENDERERS[movie.stimulus](movie, n_frames, seed)
    return np.asarray(np.clip(video, 0.0, 255.0), np.float32)


def resample_repeat(video_THW: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the movie as it came out on one trial's own 30 Hz grid.

    Here and there a frame of the movie fell just behind a tick of the grid, and the one before it was shown once
    more. Two repeats differ in at most 20 % of their frames, as in the recordings.
    """
    n_frames = len(video_THW)
    n_late = int(random.integers(0, int(_MOST_FRAMES_DIFFERENT * n_frames) + 1))
    source = np.arange(n_frames)
    source[1 + random.choice(n_frames - 1, n_late, replace=False)] -= 1
    return video_THW[source]


# Natural movies


def _render_natural_video(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Textures like natural scenes under a moving camera, with an object that moves by itself, and cuts."""
    random = random_stream(seed, "movie", movie.id)
    video_THW = np.empty((n_frames, FRAME_HEIGHT, FRAME_WIDTH), np.float32)
    start = 0
    while start < n_frames:
        length = int(random.integers(*_CLIP_N_FRAMES))
        clip = _render_clip(random, length)
        video_THW[start : start + length] = clip[: n_frames - start]
        start += length
    return video_THW


def _render_clip(random: np.random.Generator, n_frames: int) -> np.ndarray:
    scene = _sample_texture(_make_texture(random), *_move_camera(random, n_frames))
    light = _smooth(random.standard_normal((1, n_frames)), 6.0)[0]
    brightness = -0.98 + 0.25 * random.standard_normal() + 0.3 * light
    contrast = 1.2 * np.exp(0.15 * random.standard_normal())
    # A logistic of Gaussian values has the skewed histogram of the recordings' videos and stays within 0 to 255.
    value = brightness.astype(np.float32)[:, None, None] + np.float32(contrast) * scene
    return np.asarray(255.0 / (1.0 + np.exp(-value)))


def _make_texture(random: np.random.Generator, exponent: float = 1.3) -> np.ndarray:
    """Return a periodic texture with an amplitude spectrum of 1 / frequency**exponent: mean 0, std 1."""
    shape = (_TEXTURE_SIZE, _TEXTURE_SIZE)
    spectrum = np.fft.rfft2(random.standard_normal(shape, dtype=np.float32)) * _falloff(exponent)
    texture = np.fft.irfft2(spectrum, shape).astype(np.float32)
    return np.asarray(texture / texture.std())


@lru_cache(maxsize=4)
def _falloff(exponent: float) -> np.ndarray:
    vertical, horizontal = np.fft.fftfreq(_TEXTURE_SIZE)[:, None], np.fft.rfftfreq(_TEXTURE_SIZE)[None]
    radius = np.hypot(vertical, horizontal)
    # Nothing coarser than the screen is wide: a texture's mean is a scene's brightness, set elsewhere.
    falloff = np.where(radius < 1 / FRAME_WIDTH, 0.0, np.maximum(radius, 1 / _TEXTURE_SIZE) ** -exponent)
    return np.asarray(falloff * (radius < 0.35), np.float32)


def _move_camera(random: np.random.Generator, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which row and column of a texture each pixel of each frame sees: two (time, height, width) arrays."""
    drift = random.uniform(0.0, 0.5) * _direction(random.uniform(0, 2 * np.pi))
    wander = _smooth(random.standard_normal((2, n_frames)), 12.0)
    # The camera rests and rushes by turns.
    haste = np.exp(0.7 * _smooth(random.standard_normal((1, n_frames)), 12.0) - 0.25)
    velocity = (drift[:, None] + 0.4 * wander) * haste
    position = random.uniform(0, _TEXTURE_SIZE, (2, 1)) + np.cumsum(velocity, axis=1)
    zoom = np.exp(np.cumsum(_smooth(random.standard_normal((1, n_frames)), 20.0), axis=1)[0] * 0.004)
    zoom *= np.exp(random.normal(0.0, 0.004) * np.arange(n_frames))
    rows, columns = np.arange(FRAME_HEIGHT) - FRAME_HEIGHT / 2, np.arange(FRAME_WIDTH) - FRAME_WIDTH / 2
    rows_TH = position[0, :, None] + zoom[:, None] * rows
    columns_TW = position[1, :, None] + zoom[:, None] * columns
    return rows_TH.astype(np.float32), columns_TW.astype(np.float32)


def _direction(angle: float) -> np.ndarray:
    return np.array([np.sin(angle), np.cos(angle)])


def _smooth(noise: np.ndarray, time_frames: float) -> np.ndarray:
    """Smooth white noise along its last axis and give it a standard deviation of about 1."""
    lags = np.arange(int(3 * time_frames))
    kernel = np.exp(-lags / time_frames)
    kernel /= np.sqrt(np.sum(kernel**2))
    return np.stack([np.convolve(row, kernel)[: noise.shape[1]] for row in noise])


def _sample_texture(texture: np.ndarray, rows_TH: np.ndarray, columns_TW: np.ndarray) -> np.ndarray:
    """Sample a periodic texture bilinearly at the grid of rows and columns of each frame: (time, height, width)."""
    top, left = np.floor(rows_TH).astype(np.intp), np.floor(columns_TW).astype(np.intp)
    down, right = (rows_TH - top)[:, :, None], (columns_TW - left)[:, :, None]
    # Whole rows first: they lie next to each other in memory.
    upper, lower = texture[top % _TEXTURE_SIZE], texture[(top + 1) % _TEXTURE_SIZE]
    lines = (upper + (lower - upper) * down).swapaxes(1, 2)
    frame = np.arange(len(lines))[:, None]
    nearer, farther = lines[frame, left % _TEXTURE_SIZE], lines[frame, (left + 1) % _TEXTURE_SIZE]
    return np.asarray((nearer + (farther - nearer) * right).swapaxes(1, 2))


# Out of distribution


def list_gabors(movie: Movie, n_frames: int, seed: int) -> list[tuple[float, float, float]]:
    """Return what each 25 frames of a movie of Gabor patches show.

    Returns
    -------
    list of tuple of float
        Direction of drift (radians), spatial period (pixels) and temporal frequency (Hz) of each patch.
    """
    return [condition for condition, _ in _share_gabors(movie, n_frames, seed)]


def _share_gabors(
    movie: Movie, n_frames: int, seed: int
) -> list[tuple[tuple[float, float, float], np.random.Generator]]:
    directions, periods, rates_hz = (np.arange(8) * np.pi / 4).tolist(), (6.0, 10.0, 16.0), (1.0, 2.0, 4.0)
    conditions = [(a, p, f) for a in directions for p in periods for f in rates_hz]
    return _share_conditions(movie, seed, conditions, -(-n_frames // GABOR_N_FRAMES))


def _render_gabor(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Drifting Gabor patches: 8 directions, 3 spatial and 3 temporal frequencies, 25 frames each."""
    rows, columns = _pixel_grid()
    time = np.arange(GABOR_N_FRAMES)[:, None, None] / 30.0
    patches = []
    for (angle, period, rate_hz), random in _share_gabors(movie, n_frames, seed):
        center = random.uniform((10, 14), (FRAME_HEIGHT - 10, FRAME_WIDTH - 14))
        along = (columns - center[1]) * np.cos(angle) + (rows - center[0]) * np.sin(angle)
        envelope = np.exp(-((columns - center[1]) ** 2 + (rows - center[0]) ** 2) / (2 * 11.0**2))
        patches.append(_GRAY + 44.9 * envelope * np.cos(2 * np.pi * (along / period - rate_hz * time)))
    return np.concatenate(patches)[:n_frames]


def _render_gaussian_dot(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """One Gaussian blob at a time: 105 places, black or white, 9 frames each."""
    per_dot = 9
    places = [(row, column) for row in np.linspace(2, 33, 7) for column in np.linspace(2, 61, 15)]
    conditions = [(place, sign) for place in places for sign in (-1, 1)]
    rows, columns = _pixel_grid()
    dots = []
    for ((row, column), sign), _ in _share_conditions(movie, seed, conditions, -(-n_frames // per_dot)):
        blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 6.7**2))
        dots.append(np.repeat((_GRAY + sign * 120.7 * blob)[None], per_dot, axis=0))
    return np.concatenate(dots)[:n_frames]


def _render_random_dots(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Random dot kinematograms: 8 directions, 2 coherences, 2 speeds, 60 frames each."""
    per_kinematogram = 60
    conditions = [
        (direction * np.pi / 4, coherence, speed)
        for direction in range(8)
        for coherence in (0.5, 1.0)
        for speed in (0.4, 0.8)
    ]
    parts = [
        _render_kinematogram(random, per_kinematogram, *condition)
        for condition, random in _share_conditions(movie, seed, conditions, -(-n_frames // per_kinematogram))
    ]
    return np.concatenate(parts)[:n_frames]


def _render_kinematogram(
    random: np.random.Generator, n_frames: int, direction: float, coherence: float, speed: float
) -> np.ndarray:
    n_dots, radius = 40, 1.8
    size = np.array([FRAME_HEIGHT, FRAME_WIDTH])
    steps_TD2 = np.broadcast_to(speed * _direction(direction), (n_frames, n_dots, 2)).copy()
    is_noise = random.random(n_dots) >= coherence
    # Incoherent dots each move in a direction of their own.
    angles = random.uniform(0, 2 * np.pi, int(is_noise.sum()))
    steps_TD2[:, is_noise] = speed * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    places_TD2 = (random.uniform(0, 1, (n_dots, 2)) * size + np.cumsum(steps_TD2, axis=0)) % size
    rows_TDH = np.exp(-((places_TD2[..., :1] - np.arange(FRAME_HEIGHT)) ** 2) / (2 * radius**2))
    columns_TDW = np.exp(-((places_TD2[..., 1:] - np.arange(FRAME_WIDTH)) ** 2) / (2 * radius**2))
    signs_D = random.choice([-1.0, 1.0], n_dots)
    return np.asarray(
        _GRAY + 120.4 * np.tanh(np.einsum("tdh,tdw,d->thw", rows_TDH, columns_TDW, signs_D, optimize=True))
    )


def _render_pink_noise(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Directional pink noise, 27 frames in each direction."""
    per_direction = 27
    conditions = [(direction * np.pi / 6,) for direction in range(12)] * 6
    parts = [
        _render_directional_noise(random, per_direction, direction)
        for (direction,), random in _share_conditions(movie, seed, conditions, -(-n_frames // per_direction))
    ]
    return np.concatenate(parts)[:n_frames]


def _render_directional_noise(random: np.random.Generator, n_frames: int, direction: float) -> np.ndarray:
    shape = (n_frames, FRAME_HEIGHT, FRAME_WIDTH)
    spectrum = np.fft.rfftn(random.standard_normal(shape, dtype=np.float32))
    rate = np.fft.fftfreq(n_frames)[:, None, None]
    vertical, horizontal = np.fft.fftfreq(FRAME_HEIGHT)[None, :, None], np.fft.rfftfreq(FRAME_WIDTH)[None, None]
    radius = np.hypot(vertical, horizontal)
    along = horizontal * np.cos(direction) + vertical * np.sin(direction)
    # What drifts in one direction has temporal frequencies opposite in sign to the spatial ones along it.
    tuned = np.exp(3.0 * (np.abs(along) / np.maximum(radius, 1e-6) - 1.0)) * (rate * along <= 0)
    pink = 1.0 / np.maximum(np.sqrt(radius**2 + (rate * 4.0) ** 2), 1 / FRAME_WIDTH)
    spectrum *= (pink * tuned * (radius > 0)).astype(np.float32)
    noise = np.fft.irfftn(spectrum, shape, axes=(0, 1, 2))
    return np.asarray(_GRAY + 63.1 * noise / noise.std())


def _render_natural_images(movie: Movie, n_frames: int, seed: int) -> np.ndarray:
    """Still images for 15 frames, gray for 12 to 18 between them."""
    random = random_stream(seed, "movie", movie.id)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < n_frames:
        brightness = -0.98 + 0.3 * random.standard_normal()
        scene = _make_texture(random)[:FRAME_HEIGHT, :FRAME_WIDTH]
        image = 255.0 / (1.0 + np.exp(-(brightness + 1.2 * scene)))
        parts += [
            np.repeat(_GRAY + _IMAGE_CONTRAST * (image - _GRAY)[None], 15, axis=0),
            np.full((int(random.integers(12, 19)), FRAME_HEIGHT, FRAME_WIDTH), _GRAY),
        ]
    return np.concatenate(parts)[:n_frames]


def _pixel_grid() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(FRAME_HEIGHT)[:, None], np.arange(FRAME_WIDTH)[None]


_Condition = TypeVar("_Condition")


def _share_conditions(
    movie: Movie, seed: int, conditions: Sequence[_Condition], n_shown: int
) -> list[tuple[_Condition, np.random.Generator]]:
    """Return the conditions a movie shows, with a random stream each.

    The movies of a class share out one shuffled list of its conditions, so that six of them show every one. What
    goes beyond the list's end is taken from a list shuffled anew: no two movies are the same.
    """
    owner, _, _ = movie.id.rpartition("/")
    random = random_stream(seed, "movie", movie.id)
    shown = []
    for place in range(movie.number * n_shown, (movie.number + 1) * n_shown):
        round_, index = divmod(place, len(conditions))
        stream = random_stream(seed, "conditions", owner, *([round_] if round_ else []))
        shown.append((conditions[stream.permutation(len(conditions))[index]], random))
    return shown


_RENDERERS: Mapping[Stimulus, Callable[[Movie, int, int], np.ndarray]] = MappingProxyType(
    {
        Stimulus.NATURAL_VIDEO: _render_natural_video,
        Stimulus.GABOR: _render_gabor,
        Stimulus.GAUSSIAN_DOT: _render_gaussian_dot,
        Stimulus.RANDOM_DOTS: _render_random_dots,
        Stimulus.PINK_NOISE: _render_pink_noise,
        Stimulus.NATURAL_IMAGES: _render_natural_images,
    }
)
