from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.submissions import LIVE, Predicted, read_member, submit
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.submission.sources import open_entry


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def other(predicted: Predicted) -> str:
    """A second model's predictions, in raw units and without the first 40 frames."""
    values = predicted.values
    predicted.values = {alias: (17 * array + 1).astype(np.float32) for alias, array in values.items()}
    path = predicted.write("other", units="raw", first=40)
    predicted.values = values
    return path


def expected_mean(predicted: Predicted, trial: int, n_frames: int, shares: tuple[float, float]) -> np.ndarray:
    """Session F's weighted mean in plain numpy, the second member brought to standardized units."""
    std = predicted.sessions["F"].std
    floor = 0.01 * np.nanmean(std)
    precision = np.where(std > floor, 1 / np.where(std > floor, std, 1), 1 / floor)
    first = predicted.value("F", trial).astype(np.float64)
    second = (17 * predicted.value("F", trial) + 1) * precision
    return (shares[0] * first + shares[1] * second)[:, 50:n_frames]


@pytest.mark.parametrize(("weights", "shares"), [(None, (0.5, 0.5)), ((1, 2), (1 / 3, 2 / 3)), ((3, 1), (0.75, 0.25))])
def test_several_stores_are_averaged_in_standardized_units(
    predicted: Predicted, other: str, tmp_path: Path, weights: tuple[float, ...] | None, shares: tuple[float, float]
) -> None:
    submit(predicted, tmp_path, predictions=[predicted.path, other], weights=weights)
    table = read_member(tmp_path / "submission_main.zip", LIVE)
    for trial, cell in zip(table["trial_indices"][:2], table["prediction"][:2], strict=True):
        found = np.stack(cell.tolist())
        assert found.dtype == np.float32
        assert np.allclose(found, expected_mean(predicted, trial, {2: 72, 5: 310}[trial], shares), rtol=1e-6)


def test_the_mean_is_another_submission_than_its_members(predicted: Predicted, other: str, tmp_path: Path) -> None:
    both = [predicted.path, other]
    assert submit(predicted, tmp_path).status == "written"
    assert submit(predicted, tmp_path, predictions=both).status == "written"
    assert submit(predicted, tmp_path, predictions=both, weights=[1, 2]).status == "written"
    # Weights that say the same are the same.
    assert submit(predicted, tmp_path, predictions=both, weights=[0.5, 1.0]).status == "already done"


def test_wrong_weights_are_refused(predicted: Predicted, other: str) -> None:
    for weights in ([1], [1, 2, 3], [1, 0], [1, -1], [1, float("nan")], []):
        with pytest.raises(UsageError, match=r"the weights do not fit the predictions: found .* 2 positive numbers"):
            open_entry([predicted.path, other], weights)
    # Their sum, or a share, is no number that a double holds.
    for weights in ([1e308, 1e308], [1e-300, 1e300]):
        with pytest.raises(UsageError, match=r"expected 2 positive numbers of comparable size"):
            open_entry([predicted.path, other], weights)
    with pytest.raises(UsageError, match=r"found 1, 2, expected 1 positive number; .*, e\.g\. --weights 1$"):
        open_entry(predicted.path, [1, 2])


def test_the_same_predictions_twice_are_refused(predicted: Predicted) -> None:
    copied = predicted.write("copied")
    with pytest.raises(UsageError, match=r"copied: the same predictions twice: found the values of .*predictions"):
        open_entry([predicted.path, copied])
    with pytest.raises(UsageError, match="no predictions named"):
        open_entry([])


def test_members_hold_the_same_sessions_and_tiers(predicted: Predicted, tmp_path: Path) -> None:
    only_f = predicted.write("only-f", "F", first=17)
    with pytest.raises(PredictionsError, match=r"only-f: sessions .* are not predicted: found F, expected also G"):
        submit(predicted, tmp_path, predictions=[predicted.path, only_f])
    main = ("live_test_main", "final_test_main")
    no_bonus = predicted.write("no-bonus", "FG", tiers=main, first=17)
    with pytest.raises(PredictionsError, match=r"no-bonus: tiers of the bonus track are not predicted"):
        submit(predicted, tmp_path, "bonus", predictions=[predicted.path, no_bonus])
    assert submit(predicted, tmp_path, predictions=[predicted.path, no_bonus]).status == "written"


def test_member_that_lacks_frames_is_named(predicted: Predicted, tmp_path: Path) -> None:
    late = predicted.write("late", "FG", first=60)
    with pytest.raises(PredictionsError, match=r"/late: frames that are needed were not predicted"):
        submit(predicted, tmp_path, predictions=[predicted.path, late])
