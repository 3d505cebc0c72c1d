"""How much predictions change when they are computed with fewer bits, measured where responses are known.

Shape suffixes: N neurons, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.ensemble_prediction import AveragedRuns
from models.settings import Precision
from sensorium_data.errors import UsageError
from sensorium_data.frames import N_SKIPPED_FRAMES
from sensorium_data.scoring import CorrelationAccumulator
from sensorium_data.sessions import Tier
from sensorium_data.windows import TrialReader

__all__ = ["MAX_DIFFERENCE", "measure_difference", "require_small"]

#: What the mean correlation of a session's neurons may change by.
MAX_DIFFERENCE = 1e-3
#: Trials of a session that it is measured on.
_N_TRIALS = 8


def measure_difference(runs: AveragedRuns, reader: TrialReader, precision: Precision) -> dict[str, float]:
    """Return by how much the mean single-trial correlation of a session's neurons changes, by full name.

    It is measured on the first trials of the oracle tier, or of the training tier where a session has none, without the
    competition's first frames. Trials are predicted both ways.

    Parameters
    ----------
    runs : AveragedRuns
        With all bits.
    reader : TrialReader
        Of the sessions, with responses of the neurons that are predicted.
    precision : str
        To be compared with all bits.

    Raises
    ------
    UsageError
        If a session publishes no responses that could be compared with.
    """
    fewer_bits = runs.with_precision(precision)
    differences = {}
    for session in (one.name for one in reader.sessions):
        tier, trials = _find_trials(reader, session)
        normalizer = reader.open_normalizer("competition", session)
        correlations = []
        for predictor in (runs, fewer_bits):
            accumulator: CorrelationAccumulator | None = None
            for trial, n_frames, prediction_NT in predictor.iter_trials(session, [tier], trials):
                responses_NT = reader.read(session, trial).responses
                first = max(N_SKIPPED_FRAMES, n_frames - prediction_NT.shape[1])
                if responses_NT is None or first >= n_frames:
                    continue
                scaled_NT = normalizer.responses(responses_NT[:, first:n_frames], slice(first, n_frames))
                # They may end a few frames before the video.
                recorded_T = ~np.isnan(scaled_NT).any(axis=0)
                accumulator = accumulator or CorrelationAccumulator(len(prediction_NT))
                accumulator.update(prediction_NT[:, first - n_frames :][:, recorded_T], scaled_NT[:, recorded_T])
            if accumulator is None:
                raise UsageError("no trial is long enough to compare precisions on", session=session)
            correlations.append(float(np.mean(accumulator.correlation())))
        differences[session] = abs(correlations[1] - correlations[0])
    return differences


def require_small(differences: Mapping[str, float], precision: Precision) -> None:
    """Raise a :class:`UsageError` if the correlation of a session changes by :data:`MAX_DIFFERENCE` or more."""
    session, largest = max(differences.items(), key=lambda one: one[1])
    # A difference that is no number is none that is small.
    if not largest < MAX_DIFFERENCE:
        raise UsageError(
            f"precision {precision} changes what these runs predict",
            session=session,
            found=f"a correlation that differs by {largest:.2g}",
            expected=f"less than {MAX_DIFFERENCE:g}",
            remedy="leave out --precision",
        )


def _find_trials(reader: TrialReader, session: str) -> tuple[Tier, tuple[int, ...]]:
    for tier in (Tier.ORACLE, Tier.TRAIN):
        try:
            selected = reader.select_trials(session, (tier,), labelled=True)
        except UsageError:
            continue
        return tier, selected.trials[:_N_TRIALS]
    raise UsageError(
        "fewer bits cannot be compared with all of them without responses",
        session=session,
        expected="published responses of the tier oracle or train",
        remedy="leave out --precision",
    )
