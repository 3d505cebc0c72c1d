"""Runs on some trials and neurons: what they are known by, what they predict, and what is made of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.recorded_stores import Recorded, record_session
from fixtures.session_stores import write_session_store
from fixtures.tiny_training import tiny_config
from models.prediction import predict
from models.runs import describe_data, identify_run, load_run
from models.training import train
from models.training.selection import select_neurons
from sensorium_data.errors import PredictionsError, RunError, StoreError, TrialError, UsageError
from sensorium_data.predictions import open_predictions
from sensorium_data.scoring import compare_predictions, measure_oracle_correlation, score_predictions
from sensorium_data.sessions import find_sessions
from sensorium_data.statistics import response_precision
from sensorium_data.store import open_store
from sensorium_data.submission import write_submission

pytestmark = pytest.mark.usefixtures("no_curves")


def blink(arrays: dict[str, np.ndarray]) -> None:
    arrays["pupil_center"][:2, :, 20:24] = np.nan


def index_of(made: Recorded, tier: str) -> int:
    return made.tiers.index(tier)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded, str, str]:
    """A store whose first two trials blink, and two runs on it: of 3 of 6 neurons, and of all."""
    store, runs = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("runs")
    made = record_session(store, "F", change=blink)
    some, every = (
        train(tiny_config(max_epochs=1, nan_policy="interpolate:4", **settings), str(store), None, runs).run
        for settings in ({"neurons": "3", "n_trials": 4}, {})
    )
    return str(store), made, some, every


def test_equal_choices_are_one_run_and_others_another(world: tuple[str, Recorded, str, str]) -> None:
    data = describe_data(world[0], find_sessions(["F"]))
    plain = identify_run(tiny_config(), data)
    assert plain == identify_run(tiny_config(exclude=(), nan_policy="refuse", n_trials=None, neurons=None), data)
    different = [
        {"exclude": ("F:1",)},
        {"exclude": ("F:1", "F:2")},
        {"nan_policy": "drop-trial"},
        {"nan_policy": "interpolate:4"},
        {"n_trials": 4},
        {"neurons": "4"},
        {"min_reliability": 0.1},
    ]
    assert len({plain, *(identify_run(tiny_config(**one), data) for one in different)}) == 1 + len(different)
    orders = [("F:2", "F:1"), ("F:1", "F:2", "F:1")]
    assert len({identify_run(tiny_config(exclude=one), data) for one in orders}) == 1


def test_what_cannot_be_trained_on_is_refused_before_a_folder_is_made(
    world: tuple[str, Recorded, str, str], tmp_path: Path
) -> None:
    store, made = world[:2]
    oracle = tuple(f"F:{trial}" for trial, tier in zip(made.trials, made.tiers, strict=True) if tier == "oracle")
    for settings, kind, words in (
        ({}, StoreError, rf"pupil_center .*frames 20-23.*--exclude F:({made.trials[0]}|{made.trials[1]}),"),
        ({"exclude": ("F:9999",)}, TrialError, "trial 9999, .*found 14 trials"),
        ({"exclude": oracle, "nan_policy": "drop-trial"}, UsageError, "every trial of tier oracle is left out"),
        ({"min_reliability": 0.5}, UsageError, "reliability of the neurons cannot be measured"),
    ):
        with pytest.raises(kind, match=words):
            train(tiny_config(**settings), store, None, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_excluded_trials_are_neither_trained_nor_validated_on(
    world: tuple[str, Recorded, str, str], tmp_path: Path
) -> None:
    store, made = world[:2]
    blinking = tuple(f"F:{trial}" for trial in made.trials[:2])
    report = train(tiny_config(max_epochs=1, exclude=blinking), store, None, tmp_path)
    assert any(f"left out as asked: 2 trials: {made.trials[0]}, {made.trials[1]}" in note for note in report.notes)


def test_a_run_of_some_neurons_predicts_and_scores_these(world: tuple[str, Recorded, str, str], tmp_path: Path) -> None:
    store, made, some, every = world
    (session,) = load_run(some).data.sessions
    rows = np.isin(made.unit_ids, session.unit_ids)
    assert rows.sum() == 3
    np.testing.assert_array_equal(np.array(session.positions_um), made.positions[rows, :2])

    paths = {name: str(tmp_path / name) for name in ("some", "every")}
    report = predict([some], store, ["oracle", "live_test_main", "final_test_main"], paths["some"], device="cpu")
    assert any("3 of 6 neurons are predicted" in note for note in report.notes)
    predict([every], store, ["oracle"], paths["every"], device="cpu")
    predicted = open_predictions(paths["some"], "F")
    np.testing.assert_array_equal(predicted.neuron, made.unit_ids[rows])

    table = score_predictions(paths["some"], store, tiers=["oracle"])
    assert any("3 of 6 neurons are predicted, and scored" in note for note in table.notes)
    scores = table.per_neuron("F", "oracle")
    precision = response_precision(made.statistics["responses"][1])[rows]
    one, other = [], []
    for trial in predicted.trial.values[predicted.tier.values == "oracle"].tolist():
        frames = slice(50, made.n_frames[made.position(trial)])
        one.append(made.responses[made.position(trial)][rows][:, frames] * precision[:, frames])
        other.append(predicted.predictions.sel(trial=trial).values[:, frames])
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.concatenate(one, 1), np.concatenate(other, 1), strict=True)]
    np.testing.assert_allclose(scores["single_trial_correlation"], expected, atol=1e-4)

    with pytest.raises(PredictionsError, match=r"session F .*found 3 neurons, expected all 6; .*without --neurons"):
        write_submission(paths["some"], store, track="main", out=tmp_path / "out")
    with pytest.raises(PredictionsError, match=r"different neurons.*3 are the same"):
        compare_predictions([paths["every"], paths["some"]], store, tiers=["oracle"])
    with pytest.raises(RunError, match="predict different neurons"):
        predict([every, some], store, ["oracle"], str(tmp_path / "both"), device="cpu")


def test_trials_left_out_of_predictions_are_named_by_scores_and_submissions(
    world: tuple[str, Recorded, str, str], tmp_path: Path
) -> None:
    store, made, _, every = world
    tiers = ["oracle", "live_test_main", "final_test_main"]
    one_of_oracle, one_of_live = (made.trials[index_of(made, tier)] for tier in ("oracle", "live_test_main"))
    excluded = [f"F:{one_of_oracle}", f"F:{one_of_live}"]
    out = str(tmp_path / "out")
    n_all = sum(tier in tiers for tier in made.tiers)
    assert predict([every], store, tiers, out, device="cpu", exclude=excluded).n_trials == n_all - 2
    assert predict([every], store, tiers, out, device="cpu", exclude=excluded[::-1]).status == "already done"
    with pytest.raises(PredictionsError, match="other predictions lie there"):
        predict([every], store, tiers, out, device="cpu")
    table = score_predictions(out, store, tiers=["oracle"])
    assert any("1 trial of it was not predicted, 1 of them left out" in reason for reason in table.unscored)
    (scored,) = (trials for key, trials in table.trials.items() if key[1] == "oracle")
    assert one_of_oracle not in scored
    fewer = score_predictions(out, store, tiers=["oracle"], exclude=f"F:{scored[0]}")
    assert [*fewer.trials.values()] == [scored[1:]]
    with pytest.raises(UsageError, match="no trial is left to score"):
        score_predictions(out, store, tiers=["oracle"], exclude=[f"F:{trial}" for trial in scored])
    with pytest.raises(PredictionsError, match=rf"trial {one_of_live}, .*1 left out when .*without --exclude"):
        write_submission(out, store, track="main", out=tmp_path / "zips")


def test_the_policy_of_the_runs_holds_in_prediction_unless_another_is_given(
    world: tuple[str, Recorded, str, str], tmp_path: Path
) -> None:
    store, made, _, every = world
    blinking = [trial for trial, tier in zip(made.trials[:2], made.tiers[:2], strict=True) if tier == "train"]
    assert blinking
    report = predict([every], store, ["train"], str(tmp_path / "filled"), device="cpu")
    assert any("interpolated" in note for note in report.notes)
    dropped = predict([every], store, ["train"], str(tmp_path / "dropped"), device="cpu", nan_policy="drop-trial")
    assert report.n_trials - dropped.n_trials == len(blinking)
    with pytest.raises(StoreError, match="--nan drop-trial"):
        predict([every], store, ["train"], str(tmp_path / "refused"), device="cpu", nan_policy="refuse")


def test_only_reliable_neurons_are_chosen(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    signal, gain = generator.gamma(1.0, 5.0, (5, 70)), np.linspace(0, 1, 5)[:, np.newaxis]
    repeats = {trial: gain * signal + generator.gamma(1.0, 5.0, (5, 70)) for trial in (3, 7)}
    write_session_store(tmp_path, "F", responses=repeats)
    sessions = find_sessions(["F"])
    reliability = measure_oracle_correlation(tmp_path, "F")
    threshold = float(np.sort(reliability)[-2])
    assert threshold > 0
    chosen = select_neurons(tiny_config(min_reliability=threshold), open_store(tmp_path), sessions)
    unit_ids = open_store(tmp_path)["F"].neuron.values
    assert chosen == {sessions[0].name: tuple(unit_ids[reliability >= threshold].tolist())}
    with pytest.raises(UsageError, match=r"no neuron is reliable enough: found .* up to .*--min-reliability"):
        select_neurons(tiny_config(min_reliability=0.999), open_store(tmp_path), sessions)
