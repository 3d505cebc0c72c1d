"""Some trials and some neurons of a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sensorium_data as sd
from fixtures.recorded_stores import Recorded, record_session
from sensorium_data.errors import UsageError
from sensorium_data.windows import SessionTrials, choose_neurons, choose_trials, normalize_neurons

UNITS = np.array([5, 2, 9, 11, 30, 7, 8])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded]:
    store = tmp_path_factory.mktemp("store")
    return str(store), record_session(store, "F", n_neurons=8)


def test_a_number_draws_nested_subsets_in_the_stores_order() -> None:
    trials = SessionTrials("F", tuple(range(40)), (300,) * 40)
    few, more = (choose_trials(trials, n).trials for n in (5, 20))
    assert len(few) == 5
    assert set(few) < set(more)
    assert list(more) == sorted(more)
    assert few != tuple(range(5))
    # A trial that is left out moves no other.
    without = SessionTrials("F", tuple(t for t in range(40) if t != few[0]), (300,) * 39)
    assert set(choose_trials(without, 20).trials) > set(more) - {few[0]}
    assert choose_trials(trials, 100) == trials
    drawn = choose_neurons("F", UNITS, 3)
    assert [unit for unit in UNITS if unit in drawn] == drawn.tolist()
    assert set(drawn) < set(choose_neurons("F", UNITS, 4))


def test_unit_ids_and_ranges_choose_neurons() -> None:
    assert choose_neurons("F", UNITS, "30-30,5-8").tolist() == [5, 30, 7, 8]
    assert normalize_neurons("8, 5-7,30-40") == normalize_neurons("30-40,6-8,5") == "5-8,30-40"


@pytest.mark.parametrize("n_trials", [0, 2.5, True, "3"])
def test_numbers_of_trials_that_are_none_are_refused(n_trials: int) -> None:
    with pytest.raises(UsageError, match=r"number of trials: .*expected a whole number from 1 up"):
        choose_trials(SessionTrials("F", (0, 1, 2), (300,) * 3), n_trials)


@pytest.mark.parametrize("neurons", ["0", "-3", "5-2", "a", "", "1,,2", "1-", 0])
def test_choices_of_another_form_are_refused(neurons: str | int) -> None:
    with pytest.raises(UsageError, match=r"choice of neurons: .*expected how many"):
        choose_neurons("F", UNITS, neurons)


def test_unit_ids_that_no_neuron_has_are_refused() -> None:
    with pytest.raises(UsageError, match=r"session F .*found 7 neurons, unit ids 2 to 30, expected some from 40 to 50"):
        choose_neurons("F", UNITS, "2-5,40-50", path="store")


@pytest.mark.parametrize("normalization", ["competition", "vivit"])
def test_windows_of_some_neurons_are_those_rows(
    normalization: str, recorded: tuple[str, Recorded], tmp_path: Path
) -> None:
    store, _ = recorded
    every = sd.window_batches(store, n_frames=20, normalization=normalization, seed=3, n_trials=4)
    some = sd.window_batches(store, n_frames=20, normalization=normalization, seed=3, n_trials=4, neurons=3)
    assert len(some.plan(0)) == len(every.plan(0))
    trials = set()
    for whole, part in zip(every, some, strict=True):
        rows = np.isin(whole.unit_ids, part.unit_ids)
        assert rows.sum() == 3
        assert whole.responses is not None
        np.testing.assert_array_equal(part.responses, whole.responses[:, rows])
        np.testing.assert_array_equal(part.videos, whole.videos)
        trials.update(part.trials)
    assert len(trials) == 4
