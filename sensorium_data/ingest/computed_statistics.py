"""Statistics over training trials, for recordings whose archives give none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sensorium_data.schema import STATISTICS
from sensorium_data.sessions import Tier
from sensorium_data.statistics import Moments

__all__ = ["COMPUTED_STATISTICS_RULE", "ComputedStatistics"]

#: How they come about, as a store's attributes say.
COMPUTED_STATISTICS_RULE = (
    "mean, std, min and max, element by element and frame by frame, over the valid frames of the valid trials of tier "
    "train whose responses are there; no median (NaN)"
)


class ComputedStatistics:
    """The statistics of variables over training trials, taken in one trial after another, in the store's order.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The shape of one trial of each variable, as stored.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._moments = {variable: Moments(tuple(shape)) for variable, shape in shapes.items()}
        self.n_trials = 0

    def __bool__(self) -> bool:
        """Whether there is any variable to compute statistics of."""
        return bool(self._moments)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that they are computed of."""
        return tuple(self._moments)

    @property
    def known_variables(self) -> tuple[str, ...]:
        """Those of them that a trial has a value of; the statistics of the others are NaN."""
        return tuple(variable for variable, moments in self._moments.items() if moments.n.any())

    @staticmethod
    def counts(tier: str, *, valid: bool, responses_withheld: bool) -> bool:
        """Whether a trial counts."""
        return tier == Tier.TRAIN and valid and not responses_withheld

    def add(self, trial: Mapping[str, np.ndarray]) -> None:
        """Take in a trial that counts: its arrays by variable, as stored, NaN past its frames."""
        self.n_trials += 1
        for variable, moments in self._moments.items():
            moments.add(trial[variable][None], axis=(0,))

    def of(self, variable: str, statistic: str, dtype: str) -> np.ndarray:
        """Return a statistic of a variable, dimensions as a trial has them; NaN where no trial has a value."""
        moments = self._moments[variable]
        if statistic not in STATISTICS:
            raise ValueError(statistic)
        values = np.full(moments.mean.shape, np.nan) if statistic == "median" else getattr(moments, statistic)
        return np.asarray(values, dtype)
