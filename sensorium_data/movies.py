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
    "LARGEST_DIFFERENCE",
    "LEAST_SHARE_EQUAL",
    "group_movies",
    "join_movies",
    "name_movie",
    "same_movie",
    "sign_video",
    "signature_change",
    "signature_contrast",
]

#: More than this share of two repeats' frames are equal.
LEAST_SHARE_EQUAL = 0.85
#: Frames are equal when no pixel differs by more than this (luminance, 0-255).
LARGEST_DIFFERENCE = 1.0

_BLOCKS_HIGH, _BLOCKS_WIDE = 4, 8
_N_BLOCKS = _BLOCKS_HIGH * _BLOCKS_WIDE
_CONTRAST, _CHANGE = _N_BLOCKS, _N_BLOCKS + 1

# Means of float32 pixels are off by rounding; the filter must not lose a pair over that.
_ROUNDING = 1e-2


def sign_video(video: np.ndarray) -> np.ndarray:
    """Return the signature of a video.

    Parameters
    ----------
    video : np.ndarray
        (time, 36, 64), luminance 0-255, the valid frames alone.

    Returns
    -------
    np.ndarray
        (time, 34) float32: the means of 4 × 8 blocks of 9 × 8 pixels; the frame's standard deviation over pixels
        (:func:`signature_contrast`); the largest absolute difference of a pixel to the frame before, NaN
        for the first (:func:`signature_change`).
    """
    n_frames = len(video)
    signature = np.full((n_frames, _N_BLOCKS + 2), np.nan, np.float32)
    if n_frames == 0:
        return signature
    blocks = video.reshape(
        n_frames, _BLOCKS_HIGH, FRAME_HEIGHT // _BLOCKS_HIGH, _BLOCKS_WIDE, FRAME_WIDTH // _BLOCKS_WIDE
    )
    signature[:, :_N_BLOCKS] = blocks.mean(axis=(2, 4)).reshape(n_frames, _N_BLOCKS)
    signature[:, _CONTRAST] = video.std(axis=(1, 2))
    signature[1:, _CHANGE] = np.abs(np.diff(video, axis=0)).max(axis=(1, 2))
    return signature


def signature_contrast(signature: np.ndarray) -> np.ndarray:
    """Return each frame's standard deviation over pixels: (time,), luminance 0-255."""
    return signature[:, _CONTRAST]


def signature_change(signature: np.ndarray) -> np.ndarray:
    """Return the largest change of a pixel between successive frames: (time - 1,), luminance 0-255."""
    return signature[1:, _CHANGE]


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
