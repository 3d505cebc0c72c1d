"""Which trials show the same movie.

The stimulus was put on the 30 Hz grid trial by trial, so two repeats of a movie differ in some of their frames and
no content hash finds them. Two trials show the same movie when more than 56 % of their common frames differ by no
more than 1.0 in every pixel; groups are the connected components of that relation.

The threshold lies between the two kinds of pairs. In the recordings, repeats differ in up to about 15 % of their
frames. Different movies agree in no frame, but for natural images, which share the gray between the images. Ten
images of 0.517 s take 155 of at most 326 frames, so at most 52.5 % of a trial is gray. Over all pairs of simulated
movies, in seven sessions of 140 trials and two of 700, different ones agree in 27 to 44 % of the frames if both show
natural images, and in 0.3 % at most otherwise.

Comparing all pairs of videos would take hours. A signature of a few numbers a frame rules nearly all pairs out
first: where every pixel differs by at most 1.0, so does every mean over pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from sensorium_data.movies.joining import PairComparer, TrialGroups
from sensorium_data.sessions import Session

__all__ = [
    "FEATURES",
    "LARGEST_DIFFERENCE",
    "LEAST_SHARE_EQUAL",
    "LEAST_SHARE_OF_LENGTH",
    "ROUNDING",
    "group_movies",
    "join_groups",
    "name_movie",
    "same_movie",
    "sign_video",
    "signature_feature",
    "signature_means",
]

#: More than this share of two repeats' frames are equal.
LEAST_SHARE_EQUAL = 0.56
#: A repeat is longer than this share of another's length.
LEAST_SHARE_OF_LENGTH = 0.85
#: Frames are equal when no pixel differs by more than this (luminance, 0-255).
LARGEST_DIFFERENCE = 1.0
#: Means of float32 pixels are off by rounding; no filter must lose a pair over that.
ROUNDING = 1e-2

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


def sign_video(video: np.ndarray) -> np.ndarray:
    """Return the signature of a video: what tells movies apart, and classes of stimuli.

    Parameters
    ----------
    video : np.ndarray
        (time, height, width), luminance 0-255, the valid frames alone; 36 × 64 pixels in the published sessions, and
        at least 4 × 8.

    Returns
    -------
    np.ndarray
        (time, 38) float32, its columns as :data:`FEATURES` names them:

        - the means of 4 × 8 blocks, of 9 × 8 pixels each in a frame of 36 × 64;
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
    signature[:, :_N_BLOCKS] = _average_blocks(video)
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


def _average_blocks(video: np.ndarray) -> np.ndarray:
    """Return the means of a video's 4 × 8 blocks, (time, 32)."""
    n_frames, height, width = video.shape
    if height % _BLOCKS_HIGH or width % _BLOCKS_WIDE:
        starts_high = np.arange(_BLOCKS_HIGH) * height // _BLOCKS_HIGH
        starts_wide = np.arange(_BLOCKS_WIDE) * width // _BLOCKS_WIDE
        n_pixels = np.outer(np.diff(starts_high, append=height), np.diff(starts_wide, append=width))
        sums = np.add.reduceat(np.add.reduceat(video, starts_high, axis=1), starts_wide, axis=2)
        return np.asarray((sums / n_pixels).reshape(n_frames, _N_BLOCKS))
    height, width = height // _BLOCKS_HIGH, width // _BLOCKS_WIDE
    # Summed over rows first, which lie whole in memory: three times as fast as over both axes at once.
    rows = video.reshape(n_frames, _BLOCKS_HIGH, height, _BLOCKS_WIDE * width).sum(axis=2)
    blocks = rows.reshape(n_frames, _N_BLOCKS, width).sum(axis=2)
    return np.asarray(blocks / (height * width))


def signature_feature(signature: np.ndarray, name: str) -> np.ndarray:
    """Return a feature that :data:`FEATURES` names, frame by frame: (time,)."""
    return signature[:, FEATURES.index(name)]


def signature_means(signature: np.ndarray) -> np.ndarray:
    """Return the block means, (time, 32), luminance 0-255."""
    return signature[:, :_N_BLOCKS]


def same_movie(video: np.ndarray, other: np.ndarray, largest_difference: float = LARGEST_DIFFERENCE) -> bool:
    """Whether two videos show the same movie.

    Parameters
    ----------
    video, other : np.ndarray
        (time, height, width), the valid frames alone; lengths may differ, then the common frames are compared. Videos
        of different frame sizes are different movies.
    largest_difference : float
        By how much a pixel of equal frames may differ: more where the videos were stored with an error.
    """
    n_frames = min(len(video), len(other))
    # One movie's repeats differ in length by a few frames; a short video is no repeat of a longer one's start.
    if video.shape[1:] != other.shape[1:]:
        return False
    if n_frames == 0 or n_frames <= LEAST_SHARE_OF_LENGTH * max(len(video), len(other)):
        return False
    difference = np.subtract(video[:n_frames], other[:n_frames], dtype=np.float32)
    equal = (np.abs(difference, out=difference) <= largest_difference).all(axis=(1, 2))
    return int(equal.sum()) > LEAST_SHARE_EQUAL * n_frames


def group_movies(
    signatures: Sequence[np.ndarray],
    read_video: Callable[[int], np.ndarray],
    *,
    largest_error: float = 0.0,
    jobs: int = 1,
) -> list[int]:
    """Group trials that show the same movie.

    Parameters
    ----------
    signatures : sequence of np.ndarray
        A trial's :func:`sign_video` each; trials without valid frames belong to no group but their own.
    read_video : callable
        Returns the valid frames of the trial at a position, (time, 36, 64). Called for the few trials whose
        signatures agree with another's.
    largest_error : float
        Largest error of a pixel as it is read; that much more may two repeats differ, each.
    jobs : int
        Pairs of videos compared at once; with several ``read_video`` is called from as many threads.

    Returns
    -------
    list of int
        For each trial the position of the first trial of its group.
    """
    each = range(len(signatures))
    errors = [largest_error] * len(each)
    return join_groups(signatures, read_video, groups=each, batches=each, largest_errors=errors, jobs=jobs)


def join_groups(
    signatures: Sequence[np.ndarray],
    read_video: Callable[[int], np.ndarray],
    *,
    groups: Sequence[Hashable],
    batches: Sequence[int],
    largest_errors: Sequence[float],
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[int]:
    """Join groups of trials that show the same movie, such as those of several sessions.

    Parameters
    ----------
    signatures, read_video
        As of :func:`group_movies`; with several jobs ``read_video`` is called from as many threads.
    groups : sequence of hashable
        What is known: trials with equal labels show the same movie.
    batches : sequence of int
        Ascending. The trials of one batch have been compared, and are not compared with each other again.
    largest_errors : sequence of float
        For each trial, the largest error of a pixel as it is read.
    jobs : int
        Pairs of videos compared at once.
    progress : callable, optional
        Told how many trials have been compared with all before them.

    Returns
    -------
    list of int
        For each trial the position of the first trial of its group.
    """
    joined = TrialGroups(groups)
    screen = _Screen(signatures, largest_errors)

    def is_same(one: int, other: int, video: np.ndarray, other_video: np.ndarray) -> bool:
        return same_movie(video, other_video, screen.limit(one, other))

    with PairComparer(joined, read_video, is_same, jobs) as comparer:
        start = 0
        for position in range(len(signatures)):
            if position and batches[position] != batches[position - 1]:
                start = position
            for candidate in screen.find_candidates(position, start):
                comparer.offer(candidate, position)
            if progress is not None:
                progress(position + 1)
    return joined.firsts()


def name_movie(session: Session, trial: int) -> str:
    """Return the id of the movie whose first trial in a session is ``trial``.

    Examples
    --------
    >>> from sensorium_data.sessions import find_session
    >>> name_movie(find_session("F"), 17)
    '29515-10-12:17'
    """
    return f"{session.scan}:{trial}"


class _Screen:
    """Rules out, by their signatures, most of the pairs of trials that show different movies, and no other pair."""

    # Two blocks beside the frame's mean: noise has the same mean in every frame.
    _PROBED_BLOCKS = (10, 21)
    # Most pairs differ in so many frames that every fourth shows it.
    _COARSE_STEP = 4

    def __init__(self, signatures: Sequence[np.ndarray], largest_errors: Sequence[float]) -> None:
        self._blocks = [signature_means(signature) for signature in signatures]
        self._n_frames = np.array([len(signature) for signature in signatures], np.intp)
        self._errors = np.array(largest_errors, np.float32)
        longest = int(self._n_frames.max(initial=0))
        probes = np.full((1 + len(self._PROBED_BLOCKS), len(signatures), longest), np.nan, np.float32)
        for position, blocks in enumerate(self._blocks):
            probes[0, position, : len(blocks)] = blocks.mean(axis=1)
            probes[1:, position, : len(blocks)] = blocks[:, self._PROBED_BLOCKS].T
        coarse = np.ascontiguousarray(probes[..., :: self._COARSE_STEP])
        self._probes = [*coarse, *probes]

    def limit(self, one: int, other: int) -> float:
        """Return by how much a pixel of two trials' equal frames may differ."""
        return LARGEST_DIFFERENCE + float(self._errors[one]) + float(self._errors[other])

    def find_candidates(self, position: int, end: int) -> list[int]:
        """Return the trials before ``end`` that may show the same movie as the one at ``position``."""
        n_frames = int(self._n_frames[position])
        lengths = self._n_frames[:end]
        n_common = np.minimum(lengths, n_frames)
        candidates = np.flatnonzero((n_common > 0) & (n_common > LEAST_SHARE_OF_LENGTH * np.maximum(lengths, n_frames)))
        limits = LARGEST_DIFFERENCE + ROUNDING + self._errors[:end] + self._errors[position]
        for probe in self._probes:
            if len(candidates) == 0:
                return []
            # Past either's end there is NaN, which is not far. Frames that are left out count as near.
            far = np.abs(probe[candidates] - probe[position]) > limits[candidates, None]
            common = n_common[candidates]
            candidates = candidates[common - far.sum(axis=1) > LEAST_SHARE_EQUAL * common]
        return [c for c in candidates.tolist() if self._are_blocks_near(c, position, int(n_common[c]), limits[c])]

    def _are_blocks_near(self, one: int, other: int, n_common: int, limit: float) -> bool:
        near = (np.abs(self._blocks[one][:n_common] - self._blocks[other][:n_common]) <= limit).all(axis=1)
        return int(near.sum()) > LEAST_SHARE_EQUAL * n_common


def _measure_roughness(video: np.ndarray) -> np.ndarray:
    """Return each frame's mean absolute difference of a pixel to the ones right of it and below it."""
    # A quarter of the pixels, each with both neighbors, is as good as all of them.
    pixels = video[:, ::2, ::2]
    right_of, below_of = video[:, ::2, 1::2], video[:, 1::2, ::2]
    right = np.abs(right_of - pixels[:, :, : right_of.shape[2]]).mean(axis=(1, 2))
    below = np.abs(below_of - pixels[:, : below_of.shape[1]]).mean(axis=(1, 2))
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
