"""Validation scores: each by its own formula, on its own scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.inputs import ModelInputs
from models.registry import build_model
from models.runs import describe_data
from models.training.batches import TrainingBatches
from models.training.evaluation import evaluate
from models.training.ranks import Ranks
from models.training.scores import deciding_score, score_names
from models.whole_trials import predict_whole
from sensorium_data.errors import UsageError
from sensorium_data.sessions import find_sessions

CPU = torch.device("cpu")
N_SKIPPED, N_LOST = 10, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store, what it was made of, and a model of its sessions."""
    store = tmp_path_factory.mktemp("store")
    tiers = {"train": 4, "oracle": 3}
    made = [
        record_session(store, "F", n_by_tier=tiers, lengths={n: 70 + n for n in range(7)}),
        record_session(store, "G", n_by_tier=tiers, n_neurons=4),
    ]
    torch.manual_seed(0)
    config = tiny_config()
    model = build_model(config, describe_data(str(store), find_sessions(["F", "G"])).neurons)
    return str(store), made, model


def evaluate_model(world, config, **others):
    store, made, model = world
    batches = TrainingBatches(config, store, [session.name for session in made], CPU)
    return evaluate(model, batches, config, **others), batches


def traces(world, batches, frames, convert):
    """Every neuron's predictions and responses joined over trials, by session; ``convert`` scales both."""
    _, made, model = world
    joined = []
    model.eval()
    for session in made:
        normalizer = batches.normalizers[session.name]
        predicted, recorded = [], []
        for index, tier in enumerate(session.tiers):
            if tier != "oracle":
                continue
            n = session.n_frames[index]
            videos = normalizer.videos(session.videos[index][:n], slice(0, n))
            behavior = normalizer.behavior(session.behavior[index][:, :n], slice(0, n))
            planes = np.broadcast_to(behavior[:, :, None, None], (2, n, 36, 64))
            pupil = normalizer.pupil_center(session.pupil_center[index][:, :n], slice(0, n))
            with torch.no_grad():
                inputs = torch.tensor(np.concatenate([videos[None], planes])[None])
                output = model(inputs, torch.tensor(pupil)[None], session.name)[0].numpy()
            scaled = normalizer.responses(session.responses[index][:, :n], slice(0, n))
            chosen = frames(n)
            std = session.statistics["responses"][1]
            factor = convert(normalizer, std)[:, chosen]
            predicted.append(output[:, chosen - N_LOST] * factor)
            recorded.append(scaled[:, chosen] * factor)
        joined.append((np.concatenate(predicted, axis=1), np.concatenate(recorded, axis=1)))
    return [[np.corrcoef(p, r)[0, 1] for p, r in zip(*pair, strict=True)] for pair in joined]


def after_skipped(n):
    return np.arange(N_SKIPPED, n)


def sixteen_of_31(n):
    return np.array([start + offset for start in range(N_LOST, n - 30, 31) for offset in range(0, 31, 2)])


def as_trained(_, std):
    return np.ones_like(std)


def to_competition(normalizer, std):
    threshold = 0.01 * std.mean()
    return 1 / np.where(std > threshold, std, threshold) / normalizer.precision


@pytest.mark.parametrize(
    ("normalization", "own", "frames", "convert", "is_pooled"),
    [
        ("competition", "starter_kit_correlation", after_skipped, as_trained, True),
        # Its scale is the recorded one: what it is trained on.
        ("dwiseneuro", "dwiseneuro_correlation", sixteen_of_31, as_trained, False),
        ("vivit", "vivit_correlation", after_skipped, as_trained, False),
        ("vivit-closed-loop", "closed_loop_challenge_correlation", after_skipped, as_trained, False),
    ],
)
def test_every_reference_scores_in_its_own_way_beside_the_competitions(
    world, normalization, own, frames, convert, is_pooled
):
    evaluation, batches = evaluate_model(world, tiny_config(normalization=normalization))
    competition = traces(world, batches, after_skipped, to_competition)
    expected = {
        "single_trial_correlation": np.mean(np.concatenate(competition)),
        "single_trial_correlation_session_mean": np.mean([np.mean(session) for session in competition]),
    }
    by_session = traces(world, batches, frames, convert)
    expected[own] = np.mean(np.concatenate(by_session)) if is_pooled else np.mean([np.mean(s) for s in by_session])
    assert evaluation.scores == pytest.approx(expected, abs=2e-4)
    assert tuple(evaluation.scores) == score_names(normalization)
    assert evaluation.pooled == pytest.approx(evaluation.scores["single_trial_correlation"])
    # They are different quantities, or the test says nothing.
    assert len({round(score, 6) for score in expected.values()}) >= 2


def test_ranks_that_share_the_trials_get_the_whole_score(world):
    config = tiny_config()
    expected, _ = evaluate_model(world, config)

    class Recorded(Ranks):
        """A rank of two that gathers what was kept of the other."""

        def __init__(self, rank, others):
            super().__init__(rank, 2)
            self.sent, self._others = [], iter(others)

        def gather(self, value):
            self.sent.append(value)
            other = next(self._others, value)
            return [value, other] if self.rank == 0 else [other, value]

    second = Recorded(1, [])
    evaluate_model(world, config, ranks=second)
    first = Recorded(0, second.sent)
    found, _ = evaluate_model(world, config, ranks=first)
    second_again, _ = evaluate_model(world, config, ranks=Recorded(1, first.sent))
    assert found.scores == second_again.scores
    assert found.scores == pytest.approx(expected.scores, rel=1e-6)
    assert found.loss == pytest.approx(expected.loss)


def test_a_recipe_says_which_score_decides():
    assert deciding_score(tiny_config()) == "single_trial_correlation"
    assert deciding_score(tiny_config(score="session_mean")) == "single_trial_correlation_session_mean"
    assert deciding_score(tiny_config(score="reference", normalization="vivit")) == "vivit_correlation"
    with pytest.raises(ValueError, match="normalization none has no reference"):
        tiny_config(score="reference", normalization="none")


def test_a_trial_with_no_frame_to_score_is_named(world):
    with pytest.raises(UsageError, match=r"session dynamic\S+, trial \d+: no frame is left to score: found \d+ frames"):
        evaluate_model(world, tiny_config(skip_frames=76))


def test_a_model_of_every_second_frame_predicts_all_of_them(world):
    _, made, model = world
    torch.manual_seed(1)
    videos, pupil = torch.randn(1, 3, 15, 36, 64), torch.randn(1, 2, 15)
    inputs = ModelInputs(
        session=made[0].name,
        trials=(0,),
        first_frames=(0,),
        stride=1,
        videos=videos,
        behavior=torch.zeros(1, 2, 15),
        pupil_center=pupil,
        responses=torch.empty(1, 0, 15),
    )
    with torch.no_grad():
        found = predict_whole(model.eval(), inputs, made[0].name, stride=2)
        assert found.shape[-1] == 15 - 2 * N_LOST
        for frame in range(2 * N_LOST, 15):
            # What the frame's own window of every second frame says.
            window = slice(frame - 2 * N_LOST, frame + 1, 2)
            expected = model(videos[:, :, window], pupil[..., window], made[0].name)[0, :, -1]
            torch.testing.assert_close(found[0, :, frame - 2 * N_LOST], expected, rtol=1e-3, atol=1e-4)
