"""The reliability of a stored session's neurons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.session_stores import HandMadeSession, write_session_store
from sensorium_data.errors import UsageError
from sensorium_data.scoring import measure_oracle_correlation
from sensorium_data.statistics import response_precision


def by_hand(made: HandMadeSession, movies: list[tuple[int, int]]) -> np.ndarray:
    """Correlate each trial with the other of its movie, over the frames after the first 50 that both have."""
    precision = response_precision(made.std)
    pairs = []
    for movie in movies:
        n_frames = min(facts.n_frames for facts in made.trials if facts.trial in movie)
        first, second = (made.responses[made.position(t), :, :n_frames] * precision[:, :n_frames] for t in movie)
        pairs += [(first[:, 50:], second[:, 50:]), (second[:, 50:], first[:, 50:])]
    one, other = (np.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])


def test_it_is_the_correlation_with_the_movies_other_repeats(tmp_path: Path) -> None:
    made = write_session_store(tmp_path, "F")
    found = measure_oracle_correlation(tmp_path, "F")
    np.testing.assert_allclose(found, by_hand(made, [(7, 3), (4, 9)]), atol=1e-5)
    np.testing.assert_allclose(
        measure_oracle_correlation(tmp_path, "F", exclude=[3]), by_hand(made, [(4, 9)]), atol=1e-5
    )
    with pytest.raises(UsageError, match=r"session F .*found 3 oracle trials that count, and no movie"):
        measure_oracle_correlation(tmp_path, "F", exclude=[3, 9])
