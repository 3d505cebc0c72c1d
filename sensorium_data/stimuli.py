"""Which class of stimulus a trial shows; the archives do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from sensorium_data.movies import signature_change, signature_contrast
from sensorium_data.sessions import Session, Stimulus, Tier

__all__ = ["N_FRAMES_BY_STIMULUS", "recognize_stimulus", "shows_still_images"]

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

# A gray frame between images has no contrast but for rounding; a frame of any class has at least several units.
_BLANK_CONTRAST = 1.0
# Gray fills 12 to 18 of 27 to 33 frames; half of the least share leaves room for frames mixed by resampling.
_LEAST_BLANK_SHARE = 0.2
_STILL_CHANGE = 1.0
_LEAST_STILL_SHARE = 0.5


def recognize_stimulus(session: Session, tier: Tier, signature: np.ndarray) -> Stimulus:
    """Return the class of stimulus that a trial shows.

    The published classes of the trial's tier are the candidates; the number of valid frames chooses among them,
    and where it leaves natural images beside another class, the video does: natural images stand still
    and are parted by gray frames.

    Parameters
    ----------
    session : Session
        Whose tiers show which classes.
    tier : Tier
        What the trial is for.
    signature : np.ndarray
        (n_frames, 34), :func:`sensorium_data.movies.sign_video` of the valid frames.

    Returns
    -------
    Stimulus
        ``Stimulus.UNKNOWN`` where no candidate has this length.
    """
    n_frames = len(signature)
    candidates = [stimulus for stimulus in session.stimuli_of(tier) if n_frames in N_FRAMES_BY_STIMULUS[stimulus]]
    if len(candidates) > 1 and Stimulus.NATURAL_IMAGES in candidates:
        if shows_still_images(signature):
            return Stimulus.NATURAL_IMAGES
        candidates.remove(Stimulus.NATURAL_IMAGES)
    return candidates[0] if len(candidates) == 1 else Stimulus.UNKNOWN


def shows_still_images(signature: np.ndarray) -> bool:
    """Whether a video consists of still images with gray between them."""
    if len(signature) < 2:
        return False
    blank_share = float((signature_contrast(signature) < _BLANK_CONTRAST).mean())
    still_share = float((signature_change(signature) <= _STILL_CHANGE).mean())
    return blank_share >= _LEAST_BLANK_SHARE and still_share >= _LEAST_STILL_SHARE
