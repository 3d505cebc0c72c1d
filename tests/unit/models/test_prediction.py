"""What trained models predict, and what is written of it."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.ensemble_prediction import predict_batch
from models.inputs import open_normalizers
from models.prediction import find_finished_predictions, predict, predict_trial
from models.runs import load_run
from models.training import train
from sensorium_data.errors import PredictionsError, RunError, UnknownNameError, UsageError
from sensorium_data.predictions import open_predictions, predicted_sessions, predictions_attributes
from sensorium_data.scoring import score_predictions
from sensorium_data.sessions import Tier
from sensorium_data.windows import TrialReader, WindowLoader

pytestmark = pytest.mark.usefixtures("no_curves")

TIERS = ["oracle", "live_test_main"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small are slower with more."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of sessions F and G (one broken trial, several lengths) and two runs on both."""
    store, runs = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("runs")
    tiers = {"train": 3, "oracle": 2, "live_test_main": 3}
    made = {
        session.name: session
        for session in (
            record_session(store, "F", n_by_tier=tiers, lengths={n: 60 + n for n in range(8)}),
            record_session(store, "G", n_neurons=4, n_by_tier=tiers),
        )
    }
    paths = [train(tiny_config(max_epochs=1, seed=seed), str(store), None, runs).run for seed in (0, 1)]
    return str(store), made, paths


def expected_prediction(run, store, session, trial):
    """One trial's prediction by other means: the whole session's arrays, normalized and batched here."""
    reader = TrialReader(store, [session.name])
    normalizer = open_normalizers("competition", store, [session.name])[session.name]
    position = session.position(trial)
    n_frames = session.n_frames[position]
    frames = slice(0, n_frames)
    video = normalizer.videos(session.videos[position, frames], frames)
    behavior = normalizer.behavior(session.behavior[position][:, frames], frames)
    planes = np.broadcast_to(behavior[:, :, None, None], (2, n_frames, 36, 64))
    pupil = normalizer.pupil_center(session.pupil_center[position][:, frames], frames)
    assert reader.read(session.name, trial).n_frames == n_frames
    with torch.no_grad():
        inputs = torch.tensor(np.concatenate([video[None], planes]))[None]
        return load_run(run).model()(inputs, torch.tensor(pupil)[None], session.name)[0].numpy()


def test_each_trial_is_predicted_whole_and_lies_at_its_frames(world, tmp_path):
    store, made, (run, _) = world
    report = predict([run], store, TIERS, str(tmp_path / "out"), device="cpu")

    assert (report.status, report.n_trials, report.tiers) == ("predicted", 10, tuple(TIERS))
    assert [session.name for session in predicted_sessions(str(tmp_path / "out"))] == list(made)
    n_lost = load_run(run).n_frames_lost
    assert n_lost > 0
    for name, session in made.items():
        predictions = open_predictions(str(tmp_path / "out"), name)
        for trial in predictions.trial.values.tolist():
            n_frames = session.n_frames[session.position(trial)]
            assert session.tiers[session.position(trial)] in TIERS
            found = predictions.predictions.sel(trial=trial).values
            np.testing.assert_allclose(
                found[:, n_lost:n_frames], expected_prediction(run, store, session, trial), rtol=1e-4, atol=1e-5
            )
            assert np.isnan(found[:, :n_lost]).all()
            assert np.isnan(found[:, n_frames:]).all()


def test_an_ensemble_is_the_mean_of_its_runs(world, tmp_path):
    store, made, runs = world
    alone = []
    for number, run in enumerate(runs):
        predict([run], store, ["oracle"], str(tmp_path / f"{number}"), device="cpu")
        alone.append(str(tmp_path / f"{number}"))
    predict(runs, store, ["oracle"], str(tmp_path / "both"), device="cpu")
    for name in made:
        first, second, both = (
            open_predictions(url, name).predictions.values for url in (*alone, str(tmp_path / "both"))
        )
        assert not np.array_equal(first, second, equal_nan=True)
        np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5)


def test_weights_say_how_much_each_run_counts(world, tmp_path):
    store, made, runs = world
    out = [str(tmp_path / name) for name in ("first", "second", "both")]
    for run, url in zip(runs, out[:2], strict=True):
        predict([run], store, ["oracle"], url, device="cpu")
    predict(runs, store, ["oracle"], out[2], weights=[1, 3], device="cpu")
    assert predictions_attributes(out[2])["weights"] == [1.0, 3.0]
    for name in made:
        first, second, both = (open_predictions(url, name).predictions.values for url in out)
        np.testing.assert_allclose(both, 0.25 * first + 0.75 * second, rtol=1e-5)
    # The same shares of the same runs are the same predictions; others are not.
    assert predict(runs[::-1], store, ["oracle"], out[2], weights=[6, 2], device="cpu").status == "already done"
    for weights, shares in ((None, "0.5, 0.5"), ([3, 1], "0.75, 0.25")):
        said = f"other predictions lie there: found weights 0.25, 0.75, expected weights {shares};"
        with pytest.raises(PredictionsError, match=said):
            predict(runs, store, ["oracle"], out[2], weights=weights, device="cpu")
    for weights in ([1], [1, 0], [1, float("inf")]):
        with pytest.raises(UsageError, match=r"the weights do not fit the runs: found .* 2 positive numbers"):
            predict(runs, store, ["oracle"], str(tmp_path / "wrong"), weights=weights)
    assert not (tmp_path / "wrong").exists()


def test_runs_of_different_normalizations_predict_together_in_the_competitions_units(world, tmp_path):
    store, made, (run, _) = world
    raw_run = train(tiny_config(max_epochs=1, normalization="dwiseneuro"), store, None, tmp_path / "runs").run
    predict([run, raw_run], store, ["oracle"], str(tmp_path / "both"), device="cpu")
    predict([run], store, ["oracle"], str(tmp_path / "competition"), device="cpu")
    for name, session in made.items():
        model = load_run(raw_run).model()
        std = session.statistics["responses"][1]
        threshold = 0.01 * std.mean()
        precision = 1 / np.where(std > threshold, std, threshold)
        both, competition = (
            open_predictions(str(tmp_path / part), name).predictions for part in ("both", "competition")
        )
        for trial in both.trial.values.tolist():
            position = session.position(trial)
            n_frames = session.n_frames[position]
            # DwiseNeuro's inputs are what was recorded.
            planes = np.broadcast_to(session.behavior[position][:, :n_frames, None, None], (2, n_frames, 36, 64))
            inputs = np.concatenate([session.videos[position, :n_frames][None], planes])[None]
            with torch.no_grad():
                pupil = torch.tensor(session.pupil_center[position][None, :, :n_frames])
                raw = model(torch.tensor(inputs), pupil, name)[0].numpy()
            expected = (competition.sel(trial=trial).values[:, 3:n_frames] + raw * precision[:, 3:n_frames]) / 2
            np.testing.assert_allclose(both.sel(trial=trial).values[:, 3:n_frames], expected, rtol=1e-4, atol=1e-5)


def test_what_was_predicted_is_on_record(world, tmp_path):
    store, _, runs = world
    predict(runs, store, ["oracle"], str(tmp_path / "out"), device="cpu")
    attributes = predictions_attributes(str(tmp_path / "out"))
    assert attributes["response_units"] == "standardized"
    assert attributes["tiers"] == ["oracle"]
    assert attributes["runs"] == [load_run(run).digest for run in runs]


def test_finished_predictions_are_not_made_again(world, tmp_path, monkeypatch):
    store, _, runs = world
    out = str(tmp_path / "out")
    assert find_finished_predictions(runs, store, ["oracle"], out) is None
    made = predict(runs, store, ["oracle"], out, device="cpu")
    monkeypatch.setattr("models.ensemble_prediction.predict_batch", None)
    found = find_finished_predictions(runs, store, ["oracle"], out)
    assert dataclasses.replace(found, duration_s=made.duration_s) == dataclasses.replace(
        made, status="already done", n_trials=0
    )
    with pytest.raises(PredictionsError, match="lie there"):
        find_finished_predictions(runs[:1], store, ["oracle"], out)
    # The order in which runs, tiers and sessions are named does not matter.
    again = predict(runs[::-1], store, ["oracle", "oracle"], out, device="cpu", sessions=["G", "F"])
    assert (again.status, again.n_trials) == ("already done", 0)
    digests = [load_run(run).digest[:12] for run in runs]
    said = f"lie there: found runs {digests[0]}, {digests[1]}, expected runs {digests[0]}; choose another name"
    with pytest.raises(PredictionsError, match=said):
        predict(runs[:1], store, ["oracle"], out, device="cpu")
    with pytest.raises(
        PredictionsError, match="tiers oracle; sessions F, G, expected tiers live_test_main; sessions F"
    ):
        predict(runs, store, ["live_test_main"], out, device="cpu", sessions=["F"])


def test_interrupted_predictions_are_continued(world, tmp_path):
    store, made, (run, _) = world
    out = str(tmp_path / "out")

    def interrupt(label, n_done, n_total):
        assert (label, n_total) == ("predict", 10)
        if n_done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict([run], store, TIERS, out, device="cpu", progress=interrupt)
    with pytest.raises(PredictionsError, match="unfinished"):
        predicted_sessions(out)
    told = []
    report = predict([run], store, TIERS, out, device="cpu", progress=lambda *args: told.append(args))
    assert (report.status, report.n_trials) == ("predicted", 6)
    assert told == [("predict", n, 10) for n in range(5, 11)]
    for name, session in made.items():
        predictions = open_predictions(out, name).predictions
        trial = int(predictions.trial.values[0])
        n_frames = session.n_frames[session.position(trial)]
        expected = expected_prediction(run, store, session, trial)
        found = predictions.sel(trial=trial).values[:, n_frames - expected.shape[1] : n_frames]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_broken_trials_are_left_out(world, tmp_path):
    _, _, (run, _) = world
    made = record_session(tmp_path, "F", n_by_tier={"train": 3, "oracle": 2, "live_test_main": 3}, broken=(0, 5))
    broken = [made.trials[n] for n in (0, 5)]
    # The same neurons as the run's session, other trials.
    predict([run], str(tmp_path), list(dict.fromkeys(made.tiers)), str(tmp_path / "out"), sessions=["F"], device="cpu")
    predictions = open_predictions(str(tmp_path / "out"), "F").predictions
    n_predicted = np.isfinite(predictions.values).any(axis=(1, 2))
    assert dict(zip(predictions.trial.values.tolist(), n_predicted.tolist(), strict=True)) == {
        trial: trial not in broken for trial in made.trials
    }


def test_groups_of_tiers_are_those_that_the_sessions_have(world, tmp_path):
    _, _, (run, _) = world
    f = record_session(tmp_path, "F", n_by_tier={"train": 3, "oracle": 2, "test": 3})
    g = record_session(tmp_path, "G", n_neurons=4, n_by_tier={"train": 3, "oracle": 2})
    report = predict([run], tmp_path, ["test"], str(tmp_path / "test"), device="cpu")
    assert (report.sessions, report.n_trials) == ((f.name,), f.tiers.count("test"))
    assert any("G" in note and "is not predicted" in note for note in report.notes)
    report = predict([run], tmp_path, ["all"], str(tmp_path / "all"), sessions=["G"], device="cpu")
    assert report.n_trials == len(g.trials)
    assert "test" not in report.tiers


def test_chosen_sessions_alone_are_predicted(world, tmp_path):
    store, made, (run, _) = world
    report = predict([run], store, ["oracle"], str(tmp_path / "out"), sessions=["G"], device="cpu")
    assert report.sessions == (list(made)[1],)


def test_a_video_shuffled_in_time_is_predicted_otherwise(world):
    store, _, (run, _) = world
    reader = TrialReader(store, ["F"])
    loader = WindowLoader(reader, open_normalizers("competition", store, [reader.sessions[0].name]))
    trial = next(loader.iter_trials("F", [Tier.ORACLE]))
    order = np.random.default_rng(0).permutation(trial.n_frames)
    trained = load_run(run)
    model = trained.model()
    straight = predict_trial(model, trial, trained.config)
    shuffled = predict_trial(model, dataclasses.replace(trial, videos=trial.videos[:, order]), trained.config)
    assert straight.shape == shuffled.shape == (6, trial.n_frames - model.n_frames_lost)
    assert not np.allclose(straight, shuffled)


def test_a_model_in_training_mode_and_several_trials_at_once_are_refused(world):
    store, _, (run, _) = world
    reader = TrialReader(store, ["F"])
    loader = WindowLoader(reader, open_normalizers("competition", store, [reader.sessions[0].name]))
    trial = next(loader.iter_trials("F", [Tier.ORACLE]))
    trained = load_run(run)
    model = trained.model()
    with pytest.raises(UsageError, match="one trial at a time"):
        predict_trial(model, dataclasses.replace(trial, trials=(1, 2)), trained.config)
    with pytest.raises(UsageError, match="training mode"):
        predict_trial(model.train(), trial, trained.config)


def test_memory_does_not_grow_with_the_trials(world, tmp_path):
    _, _, (run, _) = world
    peaks_bytes = {}
    for n_trials in (8, 48):
        store = tmp_path / f"{n_trials}"
        store.mkdir()
        record_session(store, "F", n_by_tier={"train": 1, "oracle": n_trials})
        tracemalloc.start()
        predict([run], str(store), ["oracle"], str(tmp_path / f"out {n_trials}"), sessions=["F"], device="cpu")
        peaks_bytes[n_trials] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # A trial's video takes 0.65 MB: 40 more of them would be 26 MB.
    assert peaks_bytes[48] < peaks_bytes[8] + 3_000_000


def test_what_cannot_be_predicted_is_refused(world, tmp_path):
    store, _, (run, _) = world
    out = str(tmp_path / "out")
    with pytest.raises(RunError, match="no run here"):
        predict([str(tmp_path / "nothing")], store, TIERS, out)
    with pytest.raises(UsageError, match="no run"):
        predict([], store, TIERS, out)
    with pytest.raises(UsageError, match="same run twice"):
        predict([run, run], store, TIERS, out)
    with pytest.raises(UsageError, match="no session or no tier"):
        predict([run], store, [], out)
    with pytest.raises(UnknownNameError, match="did you mean oracle"):
        predict([run], store, ["oracel"], out)
    with pytest.raises(UsageError, match="no valid trial of tier final_test_bonus"):
        predict([run], store, ["final_test_bonus"], out, device="cpu")
    other = tmp_path / "other"
    other.mkdir()
    record_session(other, "F", n_neurons=9)
    record_session(other, "H")
    with pytest.raises(RunError, match="not those that the run was trained on"):
        predict([run], str(other), ["oracle"], out, sessions=["F"], device="cpu")
    with pytest.raises(RunError, match="not trained on this session"):
        predict([run], str(other), ["oracle"], out, sessions=["H"], device="cpu")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_the_runs_of_an_ensemble_can_be_kept_and_are_not_predicted_again(world, tmp_path, monkeypatch):
    store, made, runs = world
    options = {"device": "cpu", "weights": [1, 3]}
    expected, out, members = str(tmp_path / "expected"), str(tmp_path / "out"), str(tmp_path / "members")
    predict(runs, store, ["oracle"], expected, **options)
    predict(runs, store, ["oracle"], out, members=members, **options)
    for session in made:
        found, wanted = (open_predictions(one, session)["predictions"].values for one in (out, expected))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    kept = [f"{members}/{load_run(run).name}" for run in runs]
    assert [predictions_attributes(one)["runs"] for one in kept] == [[load_run(run).digest] for run in runs]
    # Other weights: only a mean.
    monkeypatch.setattr("models.ensemble_prediction.predict_batch", None)
    predict(runs, store, ["oracle"], str(tmp_path / "other"), members=members, device="cpu")
    parts = [open_predictions(one, "F")["predictions"].values for one in kept]
    mean = open_predictions(str(tmp_path / "other"), "F")["predictions"].values
    np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, rtol=1e-6)


def test_an_interrupted_ensemble_goes_on_with_the_run_that_it_was_at(world, tmp_path, monkeypatch):
    store, _, runs = world
    out, members = str(tmp_path / "out"), str(tmp_path / "members")
    n_calls, last = 0, None

    def count(*arguments, **more):
        nonlocal n_calls
        n_calls += 1
        if n_calls == last:
            raise KeyboardInterrupt
        return predict_batch(*arguments, **more)

    monkeypatch.setattr("models.ensemble_prediction.predict_batch", count)
    predict(runs[:1], store, ["oracle"], str(tmp_path / "alone"), device="cpu")
    n_of_a_run, n_calls = n_calls, 0
    last = n_of_a_run + 1
    with pytest.raises(KeyboardInterrupt):
        predict(runs, store, ["oracle"], out, members=members, device="cpu")
    assert not (tmp_path / "out").exists()
    n_calls, last = 0, None
    predict(runs, store, ["oracle"], out, members=members, device="cpu")
    assert n_calls == n_of_a_run
    first, second, mean = (
        open_predictions(path, "F")["predictions"].values
        for path in (*(f"{members}/{load_run(run).name}" for run in runs), out)
    )
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-6)


@pytest.mark.parametrize("inside", ["", "/", "/members", "/../out/members"])
def test_members_are_not_kept_where_the_ensemble_is_written(world, tmp_path, inside):
    store, _, runs = world
    out = str(tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be kept where the ensemble's are written"):
        predict(runs, store, ["oracle"], out, members=f"{out}{inside}", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_once", [0, 160, 10_000])
def test_trials_of_equal_length_go_through_a_model_together(world, tmp_path, monkeypatch, at_once):
    store, _, (run, _) = world
    alone, together = str(tmp_path / "alone"), str(tmp_path / "together")
    predict([run], store, TIERS, alone, device="cpu")
    sizes = []

    def count(model, trials, *arguments, **more):
        sizes.append(len(trials))
        return predict_batch(model, trials, *arguments, **more)

    monkeypatch.setattr("models.ensemble_prediction._FRAMES_AT_ONCE", {"cpu": at_once})
    monkeypatch.setattr("models.ensemble_prediction.predict_batch", count)
    predict([run], store, TIERS, together, device="cpu")
    # Those of F differ in their lengths.
    assert max(sizes) == {0: 1, 160: 2, 10_000: 5}[at_once]
    for session in ("F", "G"):
        one, other = (open_predictions(path, session)["predictions"].values for path in (alone, together))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_fewer_bits_are_measured_recorded_and_refused_where_they_matter(world, tmp_path, monkeypatch):
    store, made, runs = world
    out = str(tmp_path / "out")
    report = predict(runs, store, ["live_test_main"], out, device="cpu", precision="bf16-mixed")
    attributes = predictions_attributes(out)
    assert attributes["precision"] == "bf16-mixed"
    assert attributes["correlation_differences"].keys() == set(made)
    assert all(0 < difference < 1e-3 for difference in attributes["correlation_differences"].values())
    assert find_finished_predictions(runs, store, ["live_test_main"], out, precision="bf16-mixed").runs == report.runs
    with pytest.raises(PredictionsError, match="found precision bf16-mixed, expected precision 32-true"):
        predict(runs, store, ["live_test_main"], out, device="cpu")
    exact = str(tmp_path / "exact")
    predict(runs, store, ["live_test_main"], exact, device="cpu")
    assert "precision" not in predictions_attributes(exact)
    one, other = (open_predictions(path, "F")["predictions"].values for path in (out, exact))
    assert 0 < np.nanmax(np.abs(one - other)) < 0.1
    monkeypatch.setattr("models.prediction_precision.MAX_DIFFERENCE", 1e-12)
    with pytest.raises(UsageError, match=r"bf16-mixed changes what these runs predict.*leave out --precision"):
        predict(runs, store, ["live_test_main"], str(tmp_path / "no"), device="cpu", precision="bf16-mixed")
    assert not (tmp_path / "no").exists()


def test_tiers_that_runs_were_trained_on_are_told_where_they_are_predicted_and_scored(tmp_path):
    store = tmp_path / "store"
    record_session(store, "F", n_by_tier={"train": 4, "oracle": 4, "live_test_main": 2})
    config = tiny_config(max_epochs=1, tiers=("train", "oracle"), n_folds=2, fold=0)
    run = train(config, str(store), None, tmp_path / "runs").run
    report = predict([run], str(store), ["oracle", "live_test_main"], str(tmp_path / "out"), device="cpu")
    (note,) = [note for note in report.notes if "Trained on" in note]
    assert note.startswith(f"Trained on oracle: {load_run(run).name}.")
    table = score_predictions(str(tmp_path / "out"), str(store), tiers=["oracle"])
    assert any("the model was trained on oracle" in note for note in table.notes)


def test_something_else_at_the_place_is_told_before_the_runs_are_predicted(world, tmp_path, monkeypatch):
    store, _, runs = world
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    monkeypatch.setattr("models.ensemble_prediction.predict_batch", None)
    with pytest.raises(PredictionsError):
        predict(runs, store, ["oracle"], str(tmp_path / "out"), members=str(tmp_path / "members"), device="cpu")
    assert not (tmp_path / "members").exists()
    with pytest.raises(UsageError, match="one run is no ensemble"):
        predict(runs[:1], store, ["oracle"], str(tmp_path / "o"), members=str(tmp_path / "members"), device="cpu")
