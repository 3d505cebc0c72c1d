"""What validation scores are called, and how each is computed.

All are means of neurons' correlations between predictions of whole trials and responses; they differ in the scale of
both, in the frames, and in the mean. Scores of different names cannot be compared.

=========================================  ===============  ==============================  ======================
Name                                       Scale            Frames of each trial            Mean over
=========================================  ===============  ==============================  ======================
``single_trial_correlation``               competition's    all after the first 50          neurons of all sessions
``single_trial_correlation_session_mean``  competition's    the same                        sessions
``starter_kit_correlation``                the recipe's     the same                        neurons of all sessions
``dwiseneuro_correlation``                 raw responses    16 of every 31, every second,   sessions
                                                            from the first one on
``vivit_correlation``                      the recipe's     all after the first 50          sessions
``closed_loop_challenge_correlation``      the recipe's     the same                        sessions
=========================================  ===============  ==============================  ======================

The first two are known of every run; of the others, the one of the code that the run's normalization is taken from.
How many frames are left out is a setting, ``skip_frames``. Frames that a model loses at the start never count.
DwiseNeuro predicts its windows of 31 frames one by one; here the same frames are taken out of whole trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from models.config import TrainingConfig
from sensorium_data.statistics import Normalizer

__all__ = ["SCORES", "ScoreRule", "deciding_score", "score_names"]

_N_DWISENEURO_FRAMES = 31


@dataclass(frozen=True)
class ScoreRule:
    """How a score is computed.

    Attributes
    ----------
    scale : str
        Of predictions and responses: ``competition``, ``raw``, or ``recipe``, the one that the model is trained on.
    choose_frames : callable
        From a trial's first predicted frame, its number of frames and those to skip, the frames that count.
    is_pooled : bool
        Whether neurons count alike; else sessions do.
    """

    scale: Literal["competition", "raw", "recipe"]
    choose_frames: Callable[[int, int, int], np.ndarray]
    is_pooled: bool

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rules whose neurons have the same correlations."""
        return self.scale, self.choose_frames.__name__

    def convert(self, normalizer: Normalizer, values_NT: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return values of some frames, (neuron, frame), on the score's scale."""
        match self.scale:
            case "competition":
                return normalizer.responses_to_competition(values_NT, frames)
            case "raw":
                return normalizer.responses_to_raw(values_NT, frames)
            case "recipe":
                return values_NT

    def aggregate(self, correlations: Sequence[np.ndarray]) -> float:
        """Return the mean of neurons' correlations, one array a session."""
        if self.is_pooled:
            return float(np.concatenate(correlations).mean())
        return float(np.mean([correlation.mean() for correlation in correlations]))


def _after_skipped(first_predicted: int, n_frames: int, n_skipped: int) -> np.ndarray:
    return np.arange(max(first_predicted, n_skipped), n_frames)


def _every_second_of_31(first_predicted: int, n_frames: int, _: int) -> np.ndarray:
    starts = np.arange(first_predicted, n_frames - _N_DWISENEURO_FRAMES + 1, _N_DWISENEURO_FRAMES)
    return (starts[:, None] + np.arange(0, _N_DWISENEURO_FRAMES, 2)).ravel()


#: All scores, by name.
SCORES: Mapping[str, ScoreRule] = MappingProxyType(
    {
        "single_trial_correlation": ScoreRule("competition", _after_skipped, is_pooled=True),
        "single_trial_correlation_session_mean": ScoreRule("competition", _after_skipped, is_pooled=False),
        "starter_kit_correlation": ScoreRule("recipe", _after_skipped, is_pooled=True),
        "dwiseneuro_correlation": ScoreRule("raw", _every_second_of_31, is_pooled=False),
        "vivit_correlation": ScoreRule("recipe", _after_skipped, is_pooled=False),
        "closed_loop_challenge_correlation": ScoreRule("recipe", _after_skipped, is_pooled=False),
    }
)

_BY_NORMALIZATION = {
    "competition": "starter_kit_correlation",
    "dwiseneuro": "dwiseneuro_correlation",
    "vivit": "vivit_correlation",
    "vivit-legacy": "vivit_correlation",
    "vivit-closed-loop": "closed_loop_challenge_correlation",
}


def score_names(normalization: str) -> tuple[str, ...]:
    """Return the scores of runs with a normalization, in order."""
    own = _BY_NORMALIZATION.get(normalization)
    everybody = ("single_trial_correlation", "single_trial_correlation_session_mean")
    return (*everybody, own) if own else everybody


def deciding_score(config: TrainingConfig) -> str:
    """Return the name of the score that a recipe's schedule and best weights follow."""
    names = score_names(config.normalization)
    return names[{"pooled": 0, "session_mean": 1, "reference": 2}[config.score]]
