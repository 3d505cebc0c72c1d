"""Training: what an epoch does to the weights, what is measured, and what is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import record_links, record_session
from fixtures.session_stores import write_ledger
from fixtures.tiny_training import tiny_config
from models.devices import choose_device, repeatable
from models.inputs import open_normalizers
from models.registry import build_model
from models.runs import describe_data, load_run
from models.training import find_finished_run, train
from models.training.batches import TrainingBatches
from models.training.evaluation import Evaluation
from models.training.optimization import Optimization
from models.training.trainer import Trainer
from sensorium_data.errors import RunError, StoreError, UnknownNameError, UsageError
from sensorium_data.sessions import Tier, find_sessions
from sensorium_data.windows import TrialReader, WindowLoader, Windows, plan_in_turn

pytestmark = pytest.mark.usefixtures("no_curves")

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small are slower with more."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F")
    record_session(path, "G", n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2})
    record_links(path)
    return str(path)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A finished run: its report, and the metrics that were reported on the way."""
    epochs = []
    report = train(
        tiny_config(max_epochs=3), store, ["F", "G"], tmp_path_factory.mktemp("runs"), on_epoch=epochs.append
    )
    return report, epochs


def open_loader(store):
    reader = TrialReader(store, ["F", "G"])
    return WindowLoader(reader, open_normalizers("competition", store, [s.name for s in reader.sessions]))


def make_trainer(store, config, **changes):
    """A trainer of sessions F and G on a CPU."""
    sessions = find_sessions(["F", "G"])
    batches = TrainingBatches(config, store, [session.name for session in sessions], CPU)
    return Trainer(config, describe_data(store, sessions), batches, CPU, **changes)


def make_scorer(scores, scored_weights):
    """Stands in for an evaluation: it gives the next score, and keeps the weights that are scored."""

    def score(model, batches, *_, **__):
        scored_weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        score_now = next(scores)
        return Evaluation(
            correlations={session: np.array([score_now]) for session in batches.sessions},
            loss=1.0,
            scores={"single_trial_correlation": score_now},
        )

    return score


def weights_of(report):
    return load_run(report.run).model().state_dict()


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)


def test_the_rate_of_each_step_rises_over_the_warmup_steps(store, monkeypatch):
    trainer = make_trainer(store, tiny_config(warmup_steps=3, warmup_start_factor=0.25, n_batches_per_step=1))
    rates = []
    step = Optimization.step

    def remember(self, learning_rate):
        rates.append(learning_rate)
        step(self, learning_rate)

    monkeypatch.setattr(Optimization, "step", remember)
    trainer.train_epoch()
    assert rates[:4] == pytest.approx([0.00125, 0.0025, 0.00375, 0.005])
    assert set(rates[3:]) == {0.005}


def test_an_epoch_moves_the_weights_as_a_plain_torch_loop_does(store):
    config = tiny_config()
    data = describe_data(store, find_sessions(["F", "G"]))
    loader = open_loader(store)
    with repeatable(config.seed, CPU):
        trainer = make_trainer(store, config)
        trainer.train_epoch()

    torch.manual_seed(config.seed)
    model = build_model(config, data.neurons)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.01)
    trials = [loader.reader.select_trials(s.name, [Tier.TRAIN], labelled=True) for s in loader.reader.sessions]
    plan = plan_in_turn(trials, Windows(30), batch_size=3, seed=config.seed, epoch=0)
    batches = [batch for (batch,) in loader.iter_batches(plan)]
    for batch in batches[:2]:
        model.initialize_readout_bias(batch.session, torch.tensor(batch.responses.mean(axis=(0, 2))))
    n_trials = {session.name: session.n_trials for session in data.sessions}
    assert list(n_trials.values()) == [14, 9]  # of all tiers
    for of_f, of_g in zip(batches[::2], batches[1::2], strict=True):
        optimizer.zero_grad()
        for batch in (of_f, of_g):
            n = len(batch)
            planes = np.broadcast_to(batch.behavior[..., None, None], (n, 2, 30, 36, 64))
            videos = torch.tensor(np.concatenate([batch.videos[:, None], planes], axis=1))
            prediction = model(videos, torch.tensor(batch.pupil_center), batch.session)
            response = torch.tensor(batch.responses)[..., model.n_frames_lost :]
            poisson = (prediction - response * torch.log(prediction + 1e-8)).sum()
            (np.sqrt(n_trials[batch.session] / n) * poisson + model.regularizer()).backward()
        optimizer.step()

    expected = model.state_dict()
    # Batch norm undoes the convolutions' biases: their gradient is rounding noise, which AdamW makes whole steps of.
    idle = {
        f"core.layers.{layer}.{name}"
        for layer in (0, 1)
        for name in ("spatial.bias", "temporal.bias", "norm.running_mean")
    }
    for name, found in trainer.model.state_dict().items():
        if name not in idle:
            torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_core_can_learn_more_slowly_than_the_readouts(store):
    config = tiny_config(core_learning_rate_factor=1e-9, weight_decay=0.0)
    trainer = make_trainer(store, config)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train_epoch()
    for name, after in trainer.model.named_parameters():
        moved = float((after - before[name]).abs().max().detach())
        # Three steps of AdamW at 0.01 move a parameter by about 0.01 each.
        assert moved < 1e-8 if name.startswith("core.") else moved > 1e-3, name


def test_the_same_seed_gives_the_same_weights_and_another_one_others(store, trained, tmp_path):
    report, _ = trained
    again = train(tiny_config(max_epochs=3), store, ["F", "G"], tmp_path)
    other = train(tiny_config(max_epochs=3, seed=1), store, ["F", "G"], tmp_path)

    assert again.status == other.status == "trained"
    assert_equal_weights(weights_of(again), weights_of(report))
    assert not torch.equal(
        weights_of(other)["core.layers.0.spatial.weight"], weights_of(report)["core.layers.0.spatial.weight"]
    )


def test_threads_and_memory_of_the_loader_do_not_change_the_weights(store, trained, tmp_path, monkeypatch):
    report, _ = trained
    monkeypatch.setattr("sensorium_data.windows.trial_reader.count_cores", lambda: 5)
    again = train(tiny_config(max_epochs=3, cache_bytes=0), store, ["F", "G"], tmp_path)
    assert_equal_weights(weights_of(again), weights_of(report))
    # Neither belongs to what the run is.
    assert again.run.rpartition("/")[2] == report.run.rpartition("/")[2]


def test_the_reported_correlation_is_that_of_the_saved_weights(store, trained):
    report, epochs = trained
    model = load_run(report.run).model()
    loader = open_loader(store)
    correlations = {}
    for session in loader.reader.sessions:
        predicted, recorded = [], []
        for trial in loader.iter_trials(session.name, [Tier.ORACLE]):
            planes = np.broadcast_to(trial.behavior[..., None, None], (1, 2, trial.n_frames, 36, 64))
            videos = torch.tensor(np.concatenate([trial.videos[:, None], planes], axis=1))
            with torch.no_grad():
                prediction = model(videos, torch.tensor(trial.pupil_center), session.name)[0].numpy()
            predicted.append(prediction[:, -(trial.n_frames - 10) :])
            recorded.append(trial.responses[0, :, 10:])
        predicted, recorded = np.concatenate(predicted, axis=1), np.concatenate(recorded, axis=1)
        correlations[session.name] = [np.corrcoef(p, r)[0, 1] for p, r in zip(predicted, recorded, strict=True)]

    pooled = np.concatenate(list(correlations.values())).mean()
    assert report.best_correlation == pytest.approx(pooled, abs=1e-4)
    if report.best_epoch:
        by_session = epochs[report.best_epoch - 1].correlations
        assert by_session == pytest.approx({name: np.mean(c) for name, c in correlations.items()}, abs=1e-4)


def test_the_run_keeps_the_best_epochs_weights(trained):
    report, epochs = trained
    scores = [epoch.correlation for epoch in epochs]
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert report.n_epochs == 3
    assert report.best_correlation >= max(scores)
    if report.best_epoch:
        assert report.best_correlation == scores[report.best_epoch - 1] == max(scores)
        assert epochs[report.best_epoch - 1].improved


def test_weights_that_only_got_worse_are_taken_back(store, monkeypatch):
    scores = iter([0.0, 0.3, 0.1, 0.2])  # of the untrained model and after three epochs
    scored_weights = []
    monkeypatch.setattr("models.training.trainer.evaluate", make_scorer(scores, scored_weights))
    config = tiny_config(max_epochs=9, early_stopping_patience=1, n_rounds=2)
    with repeatable(config.seed, CPU):
        trainer = make_trainer(store, config)
        after_epochs = []
        for _ in trainer.fit():
            after_epochs.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})

    assert len(after_epochs) == 3
    best = scored_weights[1]
    assert not torch.equal(scored_weights[2]["core.layers.0.spatial.weight"], best["core.layers.0.spatial.weight"])
    for weights in after_epochs:
        assert_equal_weights(weights, best)


def test_a_recipe_that_keeps_the_last_epoch_does_so_whatever_its_score(store, monkeypatch):
    config = tiny_config(max_epochs=2, schedule="cosine", min_learning_rate=0.001, keeps="last")
    scores = iter([0.3, 0.2, 0.1])
    scored_weights = []
    monkeypatch.setattr("models.training.trainer.evaluate", make_scorer(scores, scored_weights))
    with repeatable(config.seed, CPU):
        trainer = make_trainer(store, config)
        assert [epoch.improved for epoch in trainer.fit()] == [True, True]
    assert_equal_weights(trainer.model.state_dict(), scored_weights[2])
    assert (trainer.schedule.best_epoch, trainer.best_correlation) == (2, 0.1)


def test_training_learns(store, tmp_path):
    report = train(
        tiny_config(max_epochs=12, learning_rate=0.02, n_rounds=1, early_stopping_patience=12),
        store,
        ["F", "G"],
        tmp_path,
    )
    losses = [epoch.train_loss for epoch in load_run(report.run).metrics()]
    assert min(losses[-3:]) < losses[0]
    assert report.best_correlation > 0.15


def test_a_finished_run_is_not_trained_again(store, trained, monkeypatch):
    report, _ = trained
    runs = report.run.rpartition("/")[0]

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "train_epoch", fail)
    again = train(tiny_config(max_epochs=3), store, ["F", "G"], runs)
    assert again.status == "already done"
    assert (again.run, again.best_epoch, again.best_correlation, again.n_epochs, again.sessions) == (
        report.run,
        report.best_epoch,
        report.best_correlation,
        report.n_epochs,
        report.sessions,
    )


def test_a_finished_run_with_damaged_weights_is_no_finished_run(store, trained, tmp_path):
    report, _ = trained
    run = shutil.copytree(report.run, tmp_path / Path(report.run).name)
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for use in (train, find_finished_run):
        with pytest.raises(RunError, match=r"not those that were saved: .*remove the run and train again"):
            use(tiny_config(max_epochs=3), store, ["F", "G"], tmp_path)


def test_an_interrupted_run_comes_out_the_same(store, trained, tmp_path):
    report, _ = trained

    def interrupt(metrics):
        if metrics.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(max_epochs=3), store, ["F", "G"], tmp_path, on_epoch=interrupt)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    with pytest.raises(RunError, match="unfinished"):
        load_run(str(left))

    again = train(tiny_config(max_epochs=3), store, ["F", "G"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [left.name.removesuffix(".partial")]
    assert len(load_run(again.run).metrics()) == 3
    assert_equal_weights(weights_of(again), weights_of(report))


def test_two_processes_cannot_train_one_run(store, tmp_path):
    def train_beside(metrics):
        with pytest.raises(RunError, match="another process is training this run"):
            train(tiny_config(), store, ["F"], tmp_path)

    assert train(tiny_config(), store, ["F"], tmp_path, on_epoch=train_beside).status == "trained"


def test_progress_counts_optimizer_steps(store, tmp_path):
    told = []
    train(tiny_config(), store, ["F", "G"], tmp_path, progress=lambda *args: told.append(args))
    # Session F: 8 training trials in batches of 3; both sessions take 3 turns in each of 2 epochs.
    assert told == [("train", n, 12) for n in (2, 4, 6, 8, 10, 12)]


def test_all_sessions_of_the_store_are_trained_on_by_default(store, tmp_path):
    assert train(tiny_config(max_epochs=1), store, None, tmp_path).sessions == tuple(
        session.name for session in find_sessions(["F", "G"])
    )


def test_the_average_of_the_weights_is_what_is_scored_and_kept(store, tmp_path):
    config = tiny_config(max_epochs=1, ema_decay=0.5)
    report = train(config, store, ["F", "G"], tmp_path)
    with repeatable(config.seed, CPU):
        trainer = make_trainer(store, config)

        def copy_weights():
            return {name: tensor.double().clone() for name, tensor in trainer.model.state_dict().items()}

        weights = [copy_weights()]
        trainer.train_epoch(lambda *_: weights.append(copy_weights()))
    assert len(weights) == 4  # three steps
    assert report.best_epoch == 1
    for name, kept in weights_of(report).items():
        if kept.is_floating_point():
            average = weights[0][name] / 8 + weights[1][name] / 8 + weights[2][name] / 4 + weights[3][name] / 2
            torch.testing.assert_close(kept.double(), average, rtol=1e-5, atol=1e-6, msg=name)


def test_a_run_learns_from_a_teacher_and_is_known_by_its_weights(store, tmp_path):
    teacher = train(tiny_config(max_epochs=1, seed=1), store, ["F", "G"], tmp_path).run
    taught = train(tiny_config(max_epochs=1, teacher=teacher, distillation_ratio=0.36), store, ["F", "G"], tmp_path)
    untaught = train(tiny_config(max_epochs=1), store, ["F", "G"], tmp_path)
    assert len({taught.run, untaught.run, teacher}) == 3
    assert load_run(taught.run).data.teacher == load_run(teacher).digest
    assert not torch.equal(
        weights_of(taught)["core.layers.0.spatial.weight"], weights_of(untaught)["core.layers.0.spatial.weight"]
    )
    moved = tmp_path / "moved"
    Path(teacher).rename(moved)
    again = train(tiny_config(max_epochs=1, teacher=str(moved), distillation_ratio=0.36), store, ["F", "G"], tmp_path)
    assert again.status == "already done"
    for settings, sessions, message in (
        ({"normalization": "dwiseneuro"}, ["F", "G"], "another normalization: found competition, expected dwiseneuro"),
        ({"n_folds": 2, "fold": 0}, ["F", "G"], "another n_folds: found None, expected 2"),
    ):
        config = tiny_config(teacher=str(moved), distillation_ratio=0.36, **settings)
        with pytest.raises(RunError, match=message):
            train(config, store, sessions, tmp_path)


@pytest.mark.parametrize("normalization", ["dwiseneuro", "vivit", "vivit-closed-loop", "none"])
def test_every_normalization_trains(store, tmp_path, normalization):
    settings = {"normalization": normalization, "loss_scale": "dwiseneuro", "learning_rate": 1e-4}
    report = train(tiny_config(max_epochs=1, **settings), store, ["F"], tmp_path)
    (epoch,) = load_run(report.run).metrics()
    assert np.isfinite([epoch.train_loss, *epoch.scores.values()]).all()


def test_every_fold_is_a_run_of_its_own(store, tmp_path):
    config = tiny_config(max_epochs=1, tiers=("train", "oracle"), n_folds=3, fold=2)
    run = load_run(train(config, store, ["F", "G"], tmp_path).run)
    other = train(config.model_copy(update={"fold": 1}), store, ["F", "G"], tmp_path)
    assert run.data.split
    assert other.run != str(run.path)


def test_too_little_gpu_memory_says_what_to_lower(store, tmp_path, monkeypatch):
    def run_out(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has …")

    monkeypatch.setattr("models.training.optimization.Optimization.accumulate", run_out)
    with pytest.raises(RunError, match=r"out of GPU memory: found CUDA out of memory; lower batch_size \(3\)"):
        train(tiny_config(), store, ["F"], tmp_path)


def test_sessions_of_different_precisions_are_not_trained_together(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for alias, precision in (("F", "exact"), ("G", "compact")):
        name = record_session(store, alias).name
        path = store / name / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["attributes"]["precision"] = precision
        path.write_text(json.dumps(metadata))
        (store / name / "ledger.json").unlink()
        write_ledger(store / name)
    with pytest.raises(RunError, match="different precisions: found F exact, G compact"):
        train(tiny_config(), str(store), None, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # compiles a model
# Of torch's own compiler, on itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_core_learns_alike(store, tmp_path):
    config = tiny_config(max_epochs=1)
    with repeatable(config.seed, CPU):
        eager = make_trainer(store, config)
        eager.train_epoch()
    with repeatable(config.seed, CPU):
        compiled = make_trainer(store, config.model_copy(update={"compile": True}))
        compiled.train_epoch()
    assert compiled.model.state_dict().keys() == eager.model.state_dict().keys()
    for session in find_sessions(["F", "G"]):
        name = f"readouts.{session.name}.bias"
        torch.testing.assert_close(
            compiled.model.state_dict()[name], eager.model.state_dict()[name], rtol=1e-3, atol=1e-3
        )


def test_torchs_random_state_and_settings_are_left_alone(store, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(tiny_config(max_epochs=1), store, ["F"], tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_that_is_no_number_ends_training_with_an_error(store, tmp_path):
    with pytest.raises(
        RunError, match=r"trial \d+: the loss is no longer a number.*first at frame \d+; lower the learning rate"
    ):
        train(tiny_config(learning_rate=1e30), store, ["F"], tmp_path)


@pytest.mark.parametrize(
    ("tiers", "lengths", "message"),
    [
        ({"train": 3}, None, r"no valid trial of tier oracle"),
        ({"oracle": 3}, None, r"no valid trial of tier train"),
        ({"train": 3, "oracle": 1}, dict.fromkeys(range(4), 20), r"found 20 frames, expected at least 30"),
    ],
    ids=["no oracle", "no train", "short trials"],
)
def test_data_that_cannot_be_trained_on_are_refused_before_a_folder_is_made(tmp_path, tiers, lengths, message):
    store, runs = tmp_path / "store", tmp_path / "runs"
    store.mkdir()
    record_session(store, "F", n_by_tier=tiers, lengths=lengths)
    with pytest.raises(UsageError, match=message):
        train(tiny_config(), str(store), ["F"], runs)
    assert not runs.exists()


def test_names_that_mean_nothing_are_refused_before_a_folder_is_made(store, tmp_path):
    for sessions, kind in ((["Z"], UnknownNameError), (["H"], StoreError), ([], UsageError)):
        with pytest.raises(kind):
            train(tiny_config(), store, sessions, tmp_path / "runs")
    with pytest.raises(StoreError):
        train(tiny_config(), str(tmp_path / "nothing"), ["F"], tmp_path / "runs")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            train(tiny_config(device="cuda"), store, ["F"], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(store, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=r"cannot be written: found the file .*file where a folder is expected; check"):
        train(tiny_config(), store, ["F"], tmp_path / "file")

    def take_the_name(metrics):
        (partial,) = (tmp_path / "runs").iterdir()
        taken = partial.with_name(partial.name.removesuffix(".partial"))
        taken.mkdir()
        (taken / "something").touch()

    with pytest.raises(RunError, match="cannot be written: found a folder that is not empty"):
        train(tiny_config(max_epochs=1), store, ["F"], tmp_path / "runs", on_epoch=take_the_name)


def test_devices_have_three_names():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UnknownNameError, match="did you mean cpu"):
        choose_device("cpus")
