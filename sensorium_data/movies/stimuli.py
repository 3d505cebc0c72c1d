"""Which class of stimulus a trial shows; the archives do not say it.

In a published session the tier's classes are known, and the length of a trial tells most of them apart. In a session
that nobody described the video alone must do. What is looked for is what is published of the classes, and
no more: a gray background or none, still or moving, how often the stimulus changes, and whether luminance is
spread over the screen as in a natural scene or in noise. Sizes, contrasts and speeds are not published and play
no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sensorium_data.movies.grouping import signature_feature, signature_means
from sensorium_data.sessions import Session, Stimulus, Tier

__all__ = ["N_FRAMES_BY_STIMULUS", "recognize_stimulus", "recognize_video"]

#: The lengths a class was shown at, as counted over all real trials.
N_FRAMES_BY_STIMULUS: Mapping[Stimulus, range] = MappingProxyType(
    {
        Stimulus.NATURAL_VIDEO: range(300, 301),
        Stimulus.GABOR: range(300, 301),
        Stimulus.GAUSSIAN_DOT: range(315, 316),
        Stimulus.RANDOM_DOTS: range(240, 241),
        Stimulus.PINK_NOISE: range(324, 325),
        Stimulus.NATURAL_IMAGES: range(305, 327),
    }
)

# How long each stimulus of a class lasts, in frames.
_GABOR_PERIOD, _DOT_PERIOD, _KINEMATOGRAM_PERIOD, _NOISE_PERIOD = 25, 9, 60, 27
_IMAGE_N_FRAMES, _GRAY_N_FRAMES = 15, range(12, 19)
# A transition that falls between two frames of the 30 Hz grid takes one frame from what is before or after it.
_TRANSITION_N_FRAMES = 2

# A gray frame between images has no contrast but for rounding; a frame of any class has at least several units.
_BLANK_CONTRAST = 1.0
# Gray fills 12 to 18 of 27 to 33 frames; half of the least share leaves room for frames mixed by resampling.
_LEAST_BLANK_SHARE = 0.2
_STILL_CHANGE = 1.0
_LEAST_STILL_SHARE = 0.5

# In less than a second no class shows what is typical of it.
_LEAST_N_FRAMES = 30
# A background is the same luminance throughout; what takes its place for a moment is a frame or two.
_BACKGROUND_TOLERANCE = 2.0
_LEAST_SHARE_WITH_BACKGROUND = 0.8
_LEAST_BACKGROUND_SHARE = 0.05
# Chance gives a period a recurrence of 0 +- 0.1.
_LEAST_RECURRENCE = 0.12
_CORRELATED = 0.8


def recognize_stimulus(session: Session, tier: Tier, signature: np.ndarray) -> Stimulus:
    """Return the class of stimulus that a trial shows.

    The published classes of the trial's tier are the candidates; the number of valid frames chooses among them,
    and where it leaves several, the video does. In a session that nobody described the video
    alone decides: :func:`recognize_video`.

    Parameters
    ----------
    session : Session
        Whose tiers show which classes.
    tier : Tier
        What the trial is for.
    signature : np.ndarray
        (n_frames, features), :func:`sensorium_data.movies.sign_video` of the valid frames.

    Returns
    -------
    Stimulus
        ``Stimulus.UNKNOWN`` where no candidate has this length or, of an undescribed session, this look.
    """
    published = session.stimuli_of(tier)
    if not published:
        return recognize_video(signature)
    candidates = [stimulus for stimulus in published if len(signature) in N_FRAMES_BY_STIMULUS[stimulus]]
    if len(candidates) > 1:
        look = _Look.of(signature)
        if Stimulus.NATURAL_IMAGES in candidates:
            # No other class has blank frames, so that they tell of both: of images, and of what is none.
            if look.has_blank_parts:
                return Stimulus.NATURAL_IMAGES
            candidates.remove(Stimulus.NATURAL_IMAGES)
    if len(candidates) > 1:
        candidates = [stimulus for stimulus in candidates if _LOOKS[stimulus](look)]
    return candidates[0] if len(candidates) == 1 else Stimulus.UNKNOWN


def recognize_video(signature: np.ndarray) -> Stimulus:
    """Return the class of stimulus that a video looks like, whatever was published of its session.

    The rules are strict, so that another kind of stimulus is called unknown and not by the name of
    what it resembles; but they have been tried on simulated stimuli alone, and a stimulus that shares the published
    traits of a class (squares flashed on gray for 9 frames, say) is given its name.

    Parameters
    ----------
    signature : np.ndarray
        (n_frames, features), :func:`sensorium_data.movies.sign_video` of the valid frames.

    Returns
    -------
    Stimulus
        ``Stimulus.UNKNOWN`` where none fits, or several do that the length does not tell apart.
    """
    if len(signature) < _LEAST_N_FRAMES:
        return Stimulus.UNKNOWN
    look = _Look.of(signature)
    fitting = [stimulus for stimulus, fits in _LOOKS.items() if fits(look)]
    if len(fitting) > 1:
        fitting = [stimulus for stimulus in fitting if len(signature) in N_FRAMES_BY_STIMULUS[stimulus]]
    return fitting[0] if len(fitting) == 1 else Stimulus.UNKNOWN


@dataclass(frozen=True)
class _Look:
    """What a video looks like, in the terms in which the classes are described.

    Attributes
    ----------
    n_frames : int
        Its length.
    blank : np.ndarray
        (time,) bool: frames of one luminance.
    still_share : float
        Of the frames, those in which no pixel changes.
    has_gray_background : bool
        One luminance, neither black nor white and about the mean, fills part of every frame.
    background_share : float
        How much of a frame the most common luminance fills, whether or not it is always the same.
    roughness : float
        Mean difference of neighboring pixels over the standard deviation; 1.13 for white noise.
    coarseness : float
        Share of the variance over pixels that is left in blocks of 9 × 8: 0.01 for white noise, 1 for blocks.
    brightness_spread : float
        Standard deviation of the frames' means.
    contrast_spread : float
        Standard deviation of the frames' contrasts over their mean.
    smoothness : float
        Of successive frames, the share that resemble each other.
    recurrence : mapping of int to float
        By period in frames: how much more changes at its multiples than in between.
    """

    n_frames: int
    blank: np.ndarray
    still_share: float
    has_gray_background: bool
    background_share: float
    roughness: float
    coarseness: float
    brightness_spread: float
    contrast_spread: float
    smoothness: float
    recurrence: Mapping[int, float]

    @classmethod
    def of(cls, signature: np.ndarray) -> _Look:
        blocks = signature_means(signature)
        contrast = signature_feature(signature, "contrast")
        blank = contrast < _BLANK_CONTRAST
        seen = ~blank if not blank.all() else np.ones(len(signature), bool)
        scale = np.maximum(contrast[seen], _BLANK_CONTRAST)
        background = signature_feature(signature, "background")
        share = signature_feature(signature, "background_share")
        level = float(np.median(background))
        is_at_level = np.abs(background - level) <= _BACKGROUND_TOLERANCE
        brightness = blocks.mean(axis=1)
        is_gray = 40 <= level <= 215 and abs(float(brightness.mean()) - level) <= 0.25 * float(np.median(scale))
        change = signature_feature(signature, "mean_change")[1:]
        return cls(
            n_frames=len(signature),
            blank=blank,
            still_share=float((signature_feature(signature, "largest_change")[1:] <= _STILL_CHANGE).mean()),
            has_gray_background=is_gray
            and bool(is_at_level.mean() >= _LEAST_SHARE_WITH_BACKGROUND)
            and float(np.median(share)) >= _LEAST_BACKGROUND_SHARE,
            background_share=float(np.median(share[seen])),
            roughness=float(np.median(signature_feature(signature, "roughness")[seen] / scale)),
            coarseness=float(np.median((blocks.std(axis=1)[seen] / scale) ** 2)),
            brightness_spread=float(brightness.std()),
            contrast_spread=float(contrast[seen].std() / scale.mean()),
            smoothness=_measure_smoothness(blocks),
            recurrence={
                period: _measure_recurrence(change, period)
                for period in (_GABOR_PERIOD, _DOT_PERIOD, _KINEMATOGRAM_PERIOD, _NOISE_PERIOD)
            },
        )

    @property
    def moves(self) -> bool:
        """Whether something changes in nearly every frame; a late frame repeats the one before it."""
        return self.still_share <= 0.3

    @property
    def has_blank_parts(self) -> bool:
        """Whether a good part of the frames is blank, and most of them are no different from the one before."""
        return float(self.blank.mean()) >= _LEAST_BLANK_SHARE and self.still_share >= _LEAST_STILL_SHARE


def _looks_like_natural_video(look: _Look) -> bool:
    """Moving scenes with cuts here and there: no background, brightness that varies, structure at every scale.

    Films of 24 frames a second repeat every fifth at 30 Hz, and a clip may stand still.
    """
    return (
        look.still_share <= 0.6
        and not look.has_gray_background
        and look.background_share <= 0.5
        and 0.02 <= look.roughness <= 0.6
        and 0.15 <= look.coarseness <= 0.93
        and look.brightness_spread >= 5
        and look.smoothness >= 0.6
        and max(look.recurrence[period] for period in (_GABOR_PERIOD, _DOT_PERIOD, _NOISE_PERIOD)) <= 0.25
    )


def _looks_like_gabor(look: _Look) -> bool:
    """Something that moves on gray, another one every 25 frames."""
    return (
        look.moves
        and look.has_gray_background
        and look.recurrence[_GABOR_PERIOD] >= max(_LEAST_RECURRENCE, look.recurrence[_KINEMATOGRAM_PERIOD])
    )


def _looks_like_random_dots(look: _Look) -> bool:
    """Something that moves on gray, another one every 60 frames."""
    return (
        look.moves
        and look.has_gray_background
        and look.recurrence[_KINEMATOGRAM_PERIOD] >= max(_LEAST_RECURRENCE, look.recurrence[_GABOR_PERIOD])
    )


def _looks_like_gaussian_dot(look: _Look) -> bool:
    """Something coarse that stands still on gray, which fills most of the screen; another one every 9 frames."""
    return (
        look.still_share >= 0.4
        and look.has_gray_background
        and look.background_share >= 0.4
        and look.coarseness >= 0.15
        and look.recurrence[_DOT_PERIOD] >= _LEAST_RECURRENCE
    )


def _looks_like_pink_noise(look: _Look) -> bool:
    """Correlated noise all over the screen: mean and contrast do not vary, less coarse than scenes, not white.

    The change of direction every 27 frames may be gradual; then the length must be the published one.
    """
    return (
        look.moves
        and not look.has_gray_background
        and look.background_share <= 0.1
        and 0.05 <= look.roughness <= 1.0
        and 0.04 <= look.coarseness <= 0.6
        and look.brightness_spread <= 6
        and look.contrast_spread <= 0.15
        and look.smoothness >= 0.6
        and (
            look.recurrence[_NOISE_PERIOD] >= _LEAST_RECURRENCE
            or look.n_frames in N_FRAMES_BY_STIMULUS[Stimulus.PINK_NOISE]
        )
    )


def _looks_like_natural_images(look: _Look) -> bool:
    """Still scenes of 15 frames, each followed by 12 to 18 gray ones."""
    image, gray = (_measure_runs(look.blank, value) for value in (False, True))
    return (
        look.has_blank_parts
        and abs(image - _IMAGE_N_FRAMES) <= _TRANSITION_N_FRAMES
        and min(_GRAY_N_FRAMES) - _TRANSITION_N_FRAMES <= gray <= max(_GRAY_N_FRAMES) + _TRANSITION_N_FRAMES
        and look.background_share <= 0.5
        and look.roughness <= 0.6
        and 0.15 <= look.coarseness <= 0.93
    )


_LOOKS: Mapping[Stimulus, Callable[[_Look], bool]] = MappingProxyType(
    {
        Stimulus.NATURAL_VIDEO: _looks_like_natural_video,
        Stimulus.GABOR: _looks_like_gabor,
        Stimulus.GAUSSIAN_DOT: _looks_like_gaussian_dot,
        Stimulus.RANDOM_DOTS: _looks_like_random_dots,
        Stimulus.PINK_NOISE: _looks_like_pink_noise,
        Stimulus.NATURAL_IMAGES: _looks_like_natural_images,
    }
)


def _measure_smoothness(blocks: np.ndarray) -> float:
    """Return the share of successive frames whose block means correlate."""
    centered = blocks - blocks.mean(axis=1, keepdims=True)
    norms = np.sqrt((centered**2).sum(axis=1))
    products = (centered[1:] * centered[:-1]).sum(axis=1)
    return float((products >= _CORRELATED * np.maximum(norms[1:] * norms[:-1], 1e-6)).mean())


def _measure_recurrence(change: np.ndarray, period: int) -> float:
    """Return how much more changes at the multiples of a period than elsewhere.

    Parameters
    ----------
    change : np.ndarray
        (time - 1,), from each frame to the next.
    period : int
        In frames.

    Returns
    -------
    float
        The mean rank (0 to 1) of the changes at the multiples, less the median over all phases: 0 by chance, up to
        about 0.5. Ranks, because a large stimulus changes more than a small one.
    """
    if len(change) < 2 * period:
        return 0.0
    ranks = np.append(0.5, change.argsort(kind="stable").argsort() / len(change))
    # A change may be a frame late on the 30 Hz grid.
    ranks = np.maximum(ranks, np.append(ranks[1:], 0.0))
    by_phase = [float(ranks[phase or period :: period].mean()) for phase in range(period)]
    return by_phase[0] - float(np.median(by_phase))


def _measure_runs(values: np.ndarray, value: bool) -> float:
    """Return the median length of the runs of a value, but for the last run of all, which the end cuts."""
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    lengths = np.diff(bounds)[values[bounds[:-1]] == value]
    return float(np.median(lengths)) if len(lengths) else 0.0
