from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional import pearson_corrcoef

from sensorium_data.errors import UsageError
from sensorium_data.scoring import Bootstrap
from sensorium_data.scoring.trial_moments import TrialMoments, sum_trial

LENGTHS = [250, 190, 274, 250, 201]


def make_trials(n_neurons: int = 5, offset: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    responses = [rng.gamma(0.3, 10, (n_neurons, n)) + offset for n in LENGTHS]
    return [(response, 0.3 * response + 3 * rng.random(response.shape)) for response in responses]


def take_moments(trials: list[tuple[np.ndarray, np.ndarray]]) -> TrialMoments:
    return TrialMoments([a.shape[1] for a, _ in trials], [sum_trial(a, b) for a, b in trials])


def join(trials: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.concatenate(signals, axis=1) for signals in zip(*trials, strict=True))
    return a, b


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_equals_torchmetrics_over_the_joined_trials(offset: float) -> None:
    trials = make_trials(offset=offset)
    a, b = join(trials)
    expected = pearson_corrcoef(torch.from_numpy(b.T - b.mean()), torch.from_numpy(a.T - a.mean()))
    assert np.allclose(take_moments(trials).correlation(), expected, rtol=0, atol=1e-7)


def test_weights_count_trials_as_if_they_had_been_recorded_so_often() -> None:
    trials = make_trials()
    weights = np.array([[2.0, 0, 1, 0, 3], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]])
    found = take_moments(trials).weighted_correlation(weights, slice(1, 4))
    for row, counts in zip(found, weights.astype(int), strict=True):
        a, b = join([trial for trial, n in zip(trials, counts, strict=True) for _ in range(n)])
        assert np.allclose(row, [np.corrcoef(a[i], b[i])[0, 1] for i in (1, 2, 3)], rtol=0, atol=1e-7)


def test_every_resample_is_the_correlation_over_its_trials() -> None:
    trials = make_trials(n_neurons=2)
    how = Bootstrap(100, seed=5)
    mean, low, high = take_moments(trials).bootstrap(how, "F", "oracle")
    counts = how.draw(len(trials), "trials", "F", "oracle").astype(int)
    for replicate, times in zip(mean.replicates[:10], counts, strict=False):
        a, b = join([trial for trial, n in zip(trials, times, strict=True) for _ in range(n)])
        assert replicate == pytest.approx(np.mean([np.corrcoef(a[i], b[i])[0, 1] for i in (0, 1)]), abs=1e-7)
    correlation = take_moments(trials).correlation()
    assert mean.estimate == pytest.approx(correlation.mean())
    assert (low < correlation).all()
    assert (correlation < high).all()


def test_constant_and_broken_traces_score_zero_and_leave_the_others_alone() -> None:
    trials = make_trials()
    before = take_moments(trials).correlation()
    for a, b in trials:
        a[0], b[1] = 0.1, 7.3
    trials[2][1][2, 11] = np.nan
    trials[3][0][3, 0] = np.inf
    moments = take_moments(trials)
    assert np.allclose(moments.correlation()[:4], 0, atol=1e-6)
    assert moments.correlation()[4] == before[4]
    _, low, high = moments.bootstrap(Bootstrap(100))
    assert np.allclose([low[:4], high[:4]], 0, atol=1e-6)


def test_one_trial_has_no_interval() -> None:
    mean, low, high = take_moments(make_trials()[:1]).bootstrap(Bootstrap(100))
    assert np.isfinite(mean.estimate)
    assert np.isnan(mean.interval(0.95)).all()
    assert np.isnan([low, high]).all()


def test_order_of_trials_does_not_matter() -> None:
    trials = make_trials()
    assert np.allclose(take_moments(trials).correlation(), take_moments(trials[::-1]).correlation(), atol=1e-14)


def test_signals_that_do_not_match_are_refused() -> None:
    with pytest.raises(UsageError, match=r"found \(2, 3\) and \(2, 4\)"):
        sum_trial(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(UsageError, match="with a frame at least"):
        sum_trial(np.zeros((2, 0)), np.zeros((2, 0)))
    with pytest.raises(UsageError, match="no trial"):
        TrialMoments([], [])
