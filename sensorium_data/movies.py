"""Which trials show the same movie: repeats, and movies shared between sessions.

The stimulus was put on the 30 Hz grid trial by trial, so two repeats of a movie differ in up to about 15 % of
their frames and no content hash finds them. Two trials show the same movie when more than 85 % of their
common frames differ by no more than 1.0 in every pixel; groups are the connected components of that relation.

Comparing all pairs of videos would take hours. A signature of a few numbers a frame rules nearly all pairs out
first: where every pixel differs by at most 1.0, so does every mean over pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Session

__all__ = [
    "FEATURES",
    "LARGEST_DIFFERENCE",
    "LEAST_SHARE_EQUAL",
    "group_movies",
    "join_movies",
    "name_movie",
    "same_movie",
    "sign_video",
    "signature_feature",
    "signature_means",
]

#: More than this share of two repeats' frames are equal.
LEAST_SHARE_EQUAL = 0.85
#: Frames are equal when no pixel differs by more than this (luminance, 0-255).
LARGEST_DIFFERENCE = 1.0

_BLOCKS_HIGH, _BLOCKS_WIDE = 4, 8
_N_BLOCKS = _BLOCKS_HIGH * _BLOCKS_WIDE

#: What the columns of a signature are called.
FEATURES = (
    *(f"mean_{block}" for block in range(_N_BLOCKS)),
    "contrast",
    "largest_change",
    "mean_change",
    "roughness",
    "background",
    "background_share",
)

# Of the pixels of a frame, one in so many is counted for its background. No divisor of the frame's
# width, so that every column is looked at.
_BACKGROUND_EVERY = 3
_N_LUMINANCES = 256

# Means of float32 pixels are off by rounding; the filter must not lose a pair over that.
_ROUNDING = 1e-2


def sign_video(video: np.ndarray) -> np.ndarray:
    """Return the signature of a video: what tells movies apart, and classes of stimuli.

    Parameters
    ----------
    video : np.ndarray
        (time, 36, 64), luminance 0-255, the valid frames alone.

    Returns
    -------
    np.ndarray
        (time, 38) float32, its columns as :data:`FEATURES` names them:

        - the means of 4 × 8 blocks of 9 × 8 pixels;
        - ``contrast``, the standard deviation over pixels;
        - ``largest_change`` and ``mean_change``, over pixels, of the absolute difference to the frame before; NaN for
          the first frame;
        - ``roughness``, the mean absolute difference of neighboring pixels;
        - ``background``, the middle of the two adjacent whole luminances (such as 126 to 128) that most pixels
          lie in, and ``background_share``, how many do.
    """
    n_frames = len(video)
    signature = np.full((n_frames, len(FEATURES)), np.nan, np.float32)
    if n_frames == 0:
        return signature
    video = video.astype(np.float32, copy=False)
    height, width = FRAME_HEIGHT // _BLOCKS_HIGH, FRAME_WIDTH // _BLOCKS_WIDE
    # Summed over rows first, which lie whole in memory: three times as fast as over both axes at once.
    rows = video.reshape(n_frames, _BLOCKS_HIGH, height, FRAME_WIDTH).sum(axis=2)
    blocks = rows.reshape(n_frames, _N_BLOCKS, width).sum(axis=2)
    signature[:, :_N_BLOCKS] = blocks / (height * width)
    change = np.abs(np.diff(video, axis=0))
    columns = {
        "contrast": video.std(axis=(1, 2)),
        "roughness": _measure_roughness(video),
        **dict(zip(("background", "background_share"), _find_background(video), strict=True)),
    }
    for name, values in columns.items():
        signature[:, FEATURES.index(name)] = values
    signature[1:, FEATURES.index("largest_change")] = change.max(axis=(1, 2))
    signature[1:, FEATURES.index("mean_change")] = change.mean(axis=(1, 2))
    return signature


def signature_feature(signature: np.ndarray, name: str) -> np.ndarray:
    """Return a feature that :data:`FEATURES` names, frame by frame: (time,)."""
    return signature[:, FEATURES.index(name)]


def signature_means(signature: np.ndarray) -> np.ndarray:
    """Return the block means, (time, 32), luminance 0-255."""
    return signature[:, :_N_BLOCKS]


def same_movie(video: np.ndarray, other: np.ndarray) -> bool:
    """Whether two videos show the same movie.

    Parameters
    ----------
    video, other : np.ndarray
        (time, 36, 64), the valid frames alone; lengths may differ, then the common frames are compared.
    """
    n_frames = min(len(video), len(other))
    # One movie's repeats differ in length by a few frames; a short video is no repeat of a longer one's start.
    if n_frames == 0 or n_frames <= LEAST_SHARE_EQUAL * max(len(video), len(other)):
        return False
    equal = (np.abs(video[:n_frames] - other[:n_frames]) <= LARGEST_DIFFERENCE).all(axis=(1, 2))
    return int(equal.sum()) > LEAST_SHARE_EQUAL * n_frames


def group_movies(signatures: Sequence[np.ndarray], read_video: Callable[[int], np.ndarray]) -> list[int]:
    """Group trials that show the same movie.

    Parameters
    ----------
    signatures : sequence of np.ndarray
        A trial's :func:`sign_video` each; trials without valid frames belong to no group but their own.
    read_video : callable
        Returns the valid frames of the trial at a position, (time, 36, 64). Called for the few trials whose
        signatures agree with another's.

    Returns
    -------
    list of int
        For each trial the position of the first trial of its group.
    """
    parents = list(range(len(signatures)))

    def find_root(position: int) -> int:
        while parents[position] != position:
            parents[position] = parents[parents[position]]
            position = parents[position]
        return position

    videos = _RecentVideos(read_video)
    frame_means = _stack_frame_means(signatures)
    for position, signature in enumerate(signatures):
        for candidate in _find_candidates(position, signature, signatures, frame_means):
            root, other = find_root(candidate), find_root(position)
            # The videos of trials already joined need not be looked at.
            if root != other and same_movie(videos[candidate], videos[position]):
                parents[max(root, other)] = min(root, other)
    return [find_root(position) for position in range(len(signatures))]


def join_movies(
    recordings: Mapping[str, xr.Dataset], *, jobs: int = 4, progress: Progress = ignore_progress
) -> dict[str, xr.DataArray]:
    """Return movie ids that are equal for the same movie in several sessions.

    Sessions come in pairs that were shown nearly the same movies, and a movie that one mouse saw in a test tier another
    saw in the oracle tier: whoever trains on one and tests on the other splits by these ids.

    Parameters
    ----------
    recordings : mapping of str to xarray.Dataset
        What :func:`sensorium_data.store.open_session` returns, by a name of one's choice.
    jobs : int
        Videos read at once.
    progress : Progress
        Told after each movie read.

    Returns
    -------
    dict of str to xarray.DataArray
        (trial,) for each recording, in place of its ``movie`` coordinate: a movie has the id that it has in the first
        recording that shows it.
    """
    shown: list[tuple[xr.Dataset, int, str]] = []
    for dataset in recordings.values():
        movies, first = np.unique(dataset.movie.values, return_index=True)
        shown += [(dataset, int(position), str(movie)) for movie, position in zip(movies, first, strict=True)]

    def read_video(index: int) -> np.ndarray:
        dataset, position, _ = shown[index]
        trial = dataset.isel(trial=position)
        video: np.ndarray = trial.videos.data[: int(trial.n_frames)].compute(scheduler="synchronous")
        return video

    signatures = []
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="movies") as pool:
        for signature in pool.map(lambda index: sign_video(read_video(index)), range(len(shown))):
            signatures.append(signature)
            progress("compare movies", len(signatures), len(shown))
    names = {
        movie: shown[root][2] for (_, _, movie), root in zip(shown, group_movies(signatures, read_video), strict=True)
    }
    return {
        name: dataset.movie.copy(data=np.array([names[movie] for movie in dataset.movie.values.tolist()]))
        for name, dataset in recordings.items()
    }


def name_movie(session: Session, trial: int) -> str:
    """Return the id of the movie whose first trial in a session is ``trial``.

    Examples
    --------
    >>> from sensorium_data.sessions import find_session
    >>> name_movie(find_session("F"), 17)
    '29515-10-12:17'
    """
    return f"{session.scan}:{trial}"


class _RecentVideos:
    """The videos read last, so that a movie's first trial is not read again for every repeat."""

    _LIMIT = 48

    def __init__(self, read_video: Callable[[int], np.ndarray]) -> None:
        self._read_video = read_video
        self._videos: dict[int, np.ndarray] = {}

    def __getitem__(self, position: int) -> np.ndarray:
        video = self._videos.pop(position, None)
        if video is None:
            video = self._read_video(position)
        self._videos[position] = video
        if len(self._videos) > self._LIMIT:
            del self._videos[next(iter(self._videos))]
        return video


def _measure_roughness(video: np.ndarray) -> np.ndarray:
    """Return each frame's mean absolute difference of a pixel to the ones right of it and below it."""
    # A quarter of the pixels, each with both neighbors, is as good as all of them.
    pixels = video[:, ::2, ::2]
    right = np.abs(video[:, ::2, 1::2] - pixels).mean(axis=(1, 2))
    below = np.abs(video[:, 1::2, ::2] - pixels).mean(axis=(1, 2))
    return np.asarray((right + below) / 2)


def _find_background(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each frame's background luminance, and the share of its pixels that have it."""
    n_frames = len(video)
    pixels = video.reshape(n_frames, -1)[:, ::_BACKGROUND_EVERY]
    luminances = np.clip(pixels, 0, _N_LUMINANCES - 1).astype(np.intp)
    luminances += _N_LUMINANCES * np.arange(n_frames)[:, None]
    counts = np.bincount(luminances.ravel(), minlength=n_frames * _N_LUMINANCES).reshape(n_frames, _N_LUMINANCES)
    # Two at a time: a background at a whole number may come out on either side of it.
    counts = counts[:, :-1] + counts[:, 1:]
    return counts.argmax(axis=1) + 1, counts.max(axis=1) / pixels.shape[1]


def _stack_frame_means(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """Return each trial's mean luminance a frame, (trial, time), NaN past its end."""
    longest = max((len(signature) for signature in signatures), default=0)
    means = np.full((len(signatures), longest), np.nan, np.float32)
    for row, signature in zip(means, signatures, strict=True):
        row[: len(signature)] = signature[:, :_N_BLOCKS].mean(axis=1)
    return means


def _find_candidates(
    position: int, signature: np.ndarray, signatures: Sequence[np.ndarray], frame_means: np.ndarray
) -> list[int]:
    """Return the earlier trials whose signatures do not rule out the same movie."""
    n_frames = len(signature)
    if n_frames == 0 or position == 0:
        return []
    limit = LARGEST_DIFFERENCE + _ROUNDING
    earlier = frame_means[:position, :n_frames]
    n_common = np.isfinite(earlier).sum(axis=1)
    n_near = (np.abs(earlier - frame_means[position, :n_frames]) <= limit).sum(axis=1)
    candidates = []
    lengths = np.array([len(signature) for signature in signatures[:position]])
    long_enough = n_common > LEAST_SHARE_EQUAL * np.maximum(lengths, n_frames)
    for candidate in np.flatnonzero(long_enough & (n_near > LEAST_SHARE_EQUAL * n_common)).tolist():
        common = int(n_common[candidate])
        blocks = signatures[candidate][:common, :_N_BLOCKS]
        near = (np.abs(blocks - signature[:common, :_N_BLOCKS]) <= limit).all(axis=1)
        if int(near.sum()) > LEAST_SHARE_EQUAL * common:
            candidates.append(candidate)
    return candidates
