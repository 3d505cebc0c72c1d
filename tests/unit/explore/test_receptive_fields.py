from __future__ import annotations

import numpy as np
import pytest

import sensorium_data.explore
from fixtures.explored_sessions import make_session
from sensorium_data.errors import TrialError, UnknownNameError, UsageError

HEIGHT, WIDTH, LAGS = 4, 6, (0, 1, 3)


def make_seeing_session(n_trials: int = 5, **arguments):
    """Neurons that see one pixel one frame ago, nothing, and a row of pixels three frames ago."""
    rng = np.random.default_rng(3)
    videos, responses = [], []
    for trial in range(n_trials):
        n = 60 + trial
        video = 90 + 40 * rng.normal(size=(n, HEIGHT, WIDTH))
        # Neighboring pixels and frames resemble each other, as in movies.
        video[:, :, 1:] += 0.7 * (video[:, :, :-1] - 90)
        video[1:] += 0.5 * (video[:-1] - 90)
        drive = np.stack([np.roll(video[:, 2, 3], 1), np.full(n, 71.0), np.roll(video[:, 1].mean(axis=1), 3)])
        videos.append(video)
        responses.append(np.maximum(drive - 70 + 5 * rng.normal(size=drive.shape), 0))
    return make_session(responses, videos=videos, **arguments)


def design(session, positions):
    """Responses and the frames before them, counted one by one: (frame, neuron), (frame, lag, pixel)."""
    y, x = [], []
    for position in positions:
        n = int(session.n_frames[position])
        video = session.videos.values[position, :n].reshape(n, -1).astype(float)
        for frame in range(max(LAGS), n):
            y.append(session.responses.values[position, :, frame])
            x.append(np.stack([video[frame - lag] for lag in LAGS]))
    return np.array(y, float), np.array(x)


def test_a_spike_triggered_average_is_the_weighted_mean_of_the_frames_before() -> None:
    session = make_seeing_session()
    y, x = design(session, range(5))
    expected = np.einsum("tn,tlp->nlp", y, x) / y.sum(axis=0)[:, None, None] - x.mean(axis=0)
    fields = session.sensorium.receptive_fields(lags=LAGS)
    assert fields.dims == ("neuron", "lag", "height", "width")
    np.testing.assert_allclose(fields.values.reshape(expected.shape), expected, atol=1e-3)
    assert fields.lag.values.tolist() == [0, 1, 3]
    np.testing.assert_allclose(fields.lag_s, [0, 1 / 30, 0.1])
    assert fields.attrs["n_frames"] == len(y)
    assert np.unravel_index(np.abs(fields.values[0]).argmax(), (3, HEIGHT, WIDTH)) == (1, 2, 3)


@pytest.mark.parametrize("lags", [LAGS, (3, 0, 1), (2,), range(4)])
def test_ridge_solves_the_regression(lags) -> None:
    session = make_seeing_session()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.LAGS", tuple(lags))
        y, x = design(session, range(5))
    x = x.reshape(len(x), -1)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    covariance = x.T @ x / len(x)
    penalty = 0.3 * np.trace(covariance) / len(covariance)
    expected = np.linalg.solve(covariance + penalty * np.eye(len(covariance)), x.T @ y / len(x)).T
    fields = session.sensorium.receptive_fields(lags=lags, method="ridge", penalty=0.3, bin_pixels=1)
    np.testing.assert_allclose(fields.values.reshape(expected.shape), expected, atol=1e-5)
    assert fields.lag.values.tolist() == list(lags)


def test_pixels_are_averaged_in_squares() -> None:
    session = make_seeing_session()
    whole = session.sensorium.receptive_fields([7], lags=LAGS)
    coarse = session.sensorium.receptive_fields([7], lags=LAGS, bin_pixels=2)
    expected = whole.values.reshape(1, 3, HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(coarse, expected, atol=1e-3)
    assert coarse.height.values.tolist() == [0.5, 2.5]
    assert coarse.neuron.values.tolist() == [7]
    assert session.sensorium.receptive_fields([7], lags=LAGS, method="ridge").sizes["width"] == WIDTH // 2


def test_withheld_and_broken_trials_do_not_count() -> None:
    session = make_seeing_session(withheld=[1], broken=[3])
    y, x = design(session, [0, 2, 4])
    expected = np.einsum("tn,tlp->nlp", y, x) / y.sum(axis=0)[:, None, None] - x.mean(axis=0)
    fields = session.sensorium.receptive_fields(lags=LAGS)
    np.testing.assert_allclose(fields.values.reshape(expected.shape), expected, atol=1e-3)
    assert fields.attrs["n_trials"] == 3


@pytest.mark.parametrize("method", ["spike-triggered average", "ridge"])
def test_a_missing_value_and_a_silent_neuron_are_nan_and_spoil_no_other(method: str) -> None:
    session = make_seeing_session().load()
    whole = session.sensorium.receptive_fields(lags=LAGS, method=method)
    session.responses[2, 0, 30] = np.nan
    session.responses[:, 1] = session.responses[:, 1] * 0
    fields = session.sensorium.receptive_fields(lags=LAGS, method=method)
    assert np.isnan(fields[:2]).all()
    np.testing.assert_allclose(fields[2], whole[2], rtol=1e-4, atol=1e-6)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    session = make_seeing_session()
    one, two = (sensorium_data.explore.map_receptive_fields(session, lags=LAGS, jobs=jobs) for jobs in (1, 3))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"neurons": [4]}, UsageError, "no such neuron: found 4"),
        ({"method": "ridg"}, UnknownNameError, "did you mean ridge"),
        ({"lags": [-1]}, UsageError, "no lags"),
        ({"lags": []}, UsageError, "no lags"),
        ({"lags": [1, 1]}, UsageError, "no lags"),
        ({"lags": 3}, UsageError, "no lags"),
        ({"lags": [500]}, UsageError, "no trial is longer"),
        ({"bin_pixels": 5}, UsageError, "a divisor of 4 and 6"),
        ({"method": "ridge", "penalty": 0}, UsageError, "penalty cannot be this: found 0"),
        ({"lags": range(300), "method": "ridge", "bin_pixels": 1}, UsageError, "too many weights"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, match) -> None:
    with pytest.raises(error, match=match):
        make_seeing_session().sensorium.receptive_fields(**arguments)


def test_a_video_that_lacks_values_is_named() -> None:
    session = make_seeing_session().load()
    session.videos[2, 5, 0, 0] = np.nan
    with pytest.raises(TrialError, match=r"trial 12: the video holds values that are no numbers.*found 1 of"):
        session.sensorium.receptive_fields(lags=LAGS)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A neuron takes 20 bytes a lag and pixel: float64 sums, and products of the trials under work.
    monkeypatch.setattr("sensorium_data.explore.receptive_fields._MOST_RESULT_BYTES", 2 * 3 * HEIGHT * WIDTH * 20)
    session = make_seeing_session()
    assert session.sensorium.receptive_fields([3, 5], lags=LAGS).sizes["neuron"] == 2
    with pytest.raises(UsageError, match=r"do not fit.*at most 2 neurons at once"):
        session.sensorium.receptive_fields(lags=LAGS)
