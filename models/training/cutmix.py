"""CutMix: a box of one window's video is that of another, and so is that share of its responses.

Shape suffixes: B windows of one session, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from models.inputs import ModelInputs

__all__ = ["Box", "CutMix", "draw_box"]


@dataclass(frozen=True)
class Box:
    """A box of pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, the last ones not among them."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return (self.bottom - self.top) * (self.right - self.left)


class CutMix:
    """Mixes windows of one session with each other.

    A window is mixed with probability ``probability``: a box, over all channels and frames, comes from its partner,
    another window of the same part of the batch, and its responses become the mean of both, weighted by the
    box's true share of the frame. The pupil's center, which is no picture, stays. What is drawn
    depends on a seed alone, so that a resumed run draws the same.

    Parameters
    ----------
    probability : float
        Of a window to be mixed; DwiseNeuro's is 0.5.
    alpha : float
        Areas follow Beta(alpha, alpha).

    Notes
    -----
    Yun et al. 2019, arXiv:1905.04899. DwiseNeuro draws the partner from the whole session; here it is in the same
    batch, so that no further trial is read for it.
    """

    def __init__(self, probability: float, alpha: float) -> None:
        self._probability = probability
        self._alpha = alpha

    def mix(self, inputs: ModelInputs, seed: tuple[int, ...]) -> ModelInputs:
        """Return inputs of which some windows are mixed.

        Parameters
        ----------
        inputs : ModelInputs
            Windows of one session; left as they are.
        seed : tuple of int
            Of the batch, the session and the rank.
        """
        videos_BCTHW, responses_BNT = inputs.videos, inputs.responses
        n_windows, *_, height, width = videos_BCTHW.shape
        random = np.random.default_rng(np.random.SeedSequence(seed))
        # Shifted along a random order, nobody is their own partner.
        order = random.permutation(n_windows)
        partners = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        mixed = np.flatnonzero(random.random(n_windows) < self._probability).tolist()
        if n_windows < 2 or not mixed:
            return inputs
        mixed_videos_BCTHW, mixed_responses_BNT = videos_BCTHW.clone(), responses_BNT.clone()
        for window in mixed:
            partner = partners[window]
            box = draw_box(random, self._alpha, height, width)
            pixels = (..., slice(box.top, box.bottom), slice(box.left, box.right))
            mixed_videos_BCTHW[window][pixels] = videos_BCTHW[partner][pixels]
            share = box.area / (height * width)
            mixed_responses_BNT[window] = (1 - share) * responses_BNT[window] + share * responses_BNT[partner]
        return dataclasses.replace(inputs, videos=mixed_videos_BCTHW, responses=mixed_responses_BNT)


def draw_box(random: np.random.Generator, alpha: float, height: int, width: int) -> Box:
    """Return a box in the frame's own proportions around a random pixel, cut off at the frame's edges.

    It has an even number of rows and of columns before it is cut off, as DwiseNeuro's.

    Parameters
    ----------
    random : Generator
        Draws the area, a share of the frame from Beta(alpha, alpha), and the center.
    alpha : float
        Positive.
    height, width : int
        Of the frame, pixels.
    """
    side = np.sqrt(random.beta(alpha, alpha))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = int(random.integers(height)), int(random.integers(width))
    return Box(
        top=max(0, row - half_height),
        bottom=min(height, row + half_height),
        left=max(0, column - half_width),
        right=min(width, column + half_width),
    )
