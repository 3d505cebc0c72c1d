"""What a step does: parts of several sessions, a teacher, 16-bit gradients."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fixtures.tiny_training import tiny_config
from models.inputs import InputPreparer
from models.layouts import find_layout
from models.neurons import NeuronInfo
from models.registry import build_model
from models.training.batches import TrainingBatch
from models.training.distillation import Distillation
from models.training.objective import Objective, SessionCount
from models.training.optimization import Optimization
from models.training.ranks import Ranks
from sensorium_data.errors import RunError
from sensorium_data.windows import Batch

CPU = torch.device("cpu")
N_NEURONS = {"F": 3, "G": 2, "H": 4}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def make_part(session, n_windows, seed=0):
    random = np.random.default_rng([seed, ord(session)])

    def draw(*shape):
        return random.normal(size=(n_windows, *shape)).astype(np.float32)

    return Batch(
        session=session,
        trials=tuple(range(10, 10 + n_windows)),
        first_frames=(5,) * n_windows,
        stride=1,
        videos=draw(12, 36, 64),
        responses=np.abs(draw(N_NEURONS[session], 12)),
        behavior=draw(2, 12),
        pupil_center=draw(2, 12),
        unit_ids=np.arange(N_NEURONS[session]),
    )


def batch_of(*parts, rows=slice(None)):
    """A batch of which this process has some rows of each part."""
    preparer = InputPreparer(find_layout("starter-kit"), CPU)
    own = [
        dataclasses.replace(
            part,
            trials=part.trials[rows],
            first_frames=part.first_frames[rows],
            **{name: getattr(part, name)[rows] for name in ("videos", "responses", "behavior", "pupil_center")},
        )
        for part in parts
    ]
    return TrainingBatch(
        tuple(preparer.prepare(part) for part in own if len(part)), {part.session: len(part) for part in parts}
    )


def make_model(config, sessions="FGH", seed=0):
    torch.manual_seed(seed)
    random = np.random.default_rng(0)
    neurons = {name: NeuronInfo(N_NEURONS[name], random.normal(size=(N_NEURONS[name], 2))) for name in sessions}
    model = build_model(config, neurons)
    with torch.no_grad():
        for name in sessions:
            model.readouts[name].bias.fill_(1.0)
    return model


def make_optimization(config, model, sessions="FGH", teacher=None, ranks=None):
    counts = {name: SessionCount(n_trials=40, n_training_trials=20) for name in sessions}
    distillation = None if teacher is None else Distillation(teacher, list(sessions), config.distillation_ratio)
    return Optimization(
        config,
        model,
        Objective(config, counts),
        N_NEURONS,
        CPU,
        ranks or Ranks(),
        distillation,
    )


def without_noise(model):
    """A model that draws nothing and whose batch norm does not look at the batch."""
    return model.eval()


def inputs_of(part):
    planes = np.broadcast_to(part.behavior[..., None, None], (len(part), 2, 12, 36, 64))
    return torch.tensor(np.concatenate([part.videos[:, None], planes], axis=1)), torch.tensor(part.pupil_center)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def poisson(prediction, response):
    return (prediction - response[..., -prediction.shape[-1] :] * torch.log(prediction + 1e-8)).sum()


def test_a_batch_that_mixes_sessions_is_the_mean_over_its_windows():
    config = tiny_config(n_frames_window=12, loss_scale="dwiseneuro")
    model = without_noise(make_model(config))
    parts = [make_part("F", 3), make_part("H", 2)]
    result = make_optimization(config, model).accumulate(batch_of(*parts), seed=(0,))
    found = gradients(model)

    model.zero_grad()
    losses = [poisson(model(*inputs_of(part), part.session), torch.tensor(part.responses)) for part in parts]
    (sum(losses) / 5 + model.regularizer()).backward()
    assert result.loss == pytest.approx(float(sum(losses).detach()), rel=1e-5)
    assert result.n_values == (3 * 3 + 2 * 4) * 9
    assert found.keys() == gradients(model).keys()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_readouts_are_penalized_in_the_batches_of_their_sessions():
    config = tiny_config(n_frames_window=12)
    sparse = tiny_config(n_frames_window=12, model={**config.model.model_dump(), "readout_sparsity": 0.5})
    batch = batch_of(make_part("F", 3), make_part("H", 2))
    found = {}
    for name, recipe in (("plain", config), ("sparse", sparse)):
        model = without_noise(make_model(recipe))
        result = make_optimization(recipe, model).accumulate(batch, seed=(0,))
        found[name] = result.regularizer, gradients(model)
    length = sum(model.readouts[session].features.abs().sum().item() for session in "FH")
    assert found["sparse"][0] - found["plain"][0] == pytest.approx(0.5 * length, rel=1e-4)
    for name, gradient in found["sparse"][1].items():
        # The weights of the channels begin above 0.
        added = 0.5 if name in ("readouts.F.features", "readouts.H.features") else 0.0
        torch.testing.assert_close(gradient, found["plain"][1][name] + added, msg=name)
    assert not any("readouts.G" in name for name in found["sparse"][1])


def test_batch_norm_sees_a_mixed_batch_whole():
    config = tiny_config(n_frames_window=12)
    model = make_model(config).train()
    parts = [make_part("F", 2), make_part("H", 2, seed=1)]
    parts[1] = dataclasses.replace(parts[1], videos=parts[1].videos + 5)
    first = model.core.layers[0]
    make_optimization(config, model).accumulate(batch_of(*parts), seed=(0,))
    with torch.no_grad():
        videos = torch.cat([inputs_of(part)[0] for part in parts])
        frames = videos.transpose(1, 2).flatten(0, 1)
        spatial = first.spatial(frames).unflatten(0, (4, 12)).transpose(1, 2).flatten(3)
        mean = first.temporal(spatial).mean(dim=(0, 2, 3))
    momentum = config.model.batch_norm_momentum
    torch.testing.assert_close(first.norm.running_mean, momentum * mean, rtol=1e-3, atol=1e-3)


def test_a_teacher_has_its_share_of_the_weight_on_the_sessions_that_were_not_recorded():
    ratio = 0.36
    config = tiny_config(n_frames_window=12, loss_scale="dwiseneuro", teacher="somewhere", distillation_ratio=ratio)
    student, teacher = without_noise(make_model(config)), without_noise(make_model(config, seed=1))
    parts = [make_part("F", 3), make_part("H", 1)]
    optimization = make_optimization(config, student, teacher=teacher)
    optimization.accumulate(batch_of(*parts), seed=(0,))
    found = gradients(student)

    student.zero_grad()
    total, n_windows, n_missing = student.regularizer(), 4, 4 * 2
    # DwiseNeuro: a window weighs 1, a missing one ratio / (1 - ratio) * 4 / 8, and all are divided by their sum.
    missing_weight = ratio / (1 - ratio) * n_windows / n_missing
    weight_sum = n_windows + n_missing * missing_weight
    assert n_missing * missing_weight / weight_sum == pytest.approx(0.36)
    for part in parts:
        for session in N_NEURONS:
            prediction = student(*inputs_of(part), session)
            if session == part.session:
                total = total + poisson(prediction, torch.tensor(part.responses)) / weight_sum
            else:
                with torch.no_grad():
                    taught = teacher(*inputs_of(part), session)
                total = total + poisson(prediction, taught) * missing_weight / weight_sum
    total.backward()
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert any(name.startswith("readouts.G") for name in found)
    assert not gradients(teacher)


def test_a_teacher_of_one_session_teaches_nothing():
    distillation = Distillation(torch.nn.Identity(), ["F"], 0.36)
    assert distillation.share_weights({"F": 0.25}, {"F": 4}) == ({"F": 0.25}, 0.0)


def test_gradients_that_overflow_16_bits_skip_the_step_and_are_scaled_down():
    config = tiny_config(n_frames_window=12, precision="16-mixed", gradient_norm_percentile=50.0)
    model = make_model(config).train()
    optimization = make_optimization(config, model)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    scale = optimization.state()["scaler"]["scale"]
    for _ in range(20):
        optimization.accumulate(batch_of(make_part("F", 2)), seed=(0,))
        optimization.step(0.01)
        moved = any(not torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
        if moved:
            break
        scale /= 2
        assert optimization.state()["scaler"]["scale"] == scale
    # The first scale, 65536, is too much for sums over this many pixels.
    assert optimization.n_skipped_steps >= 1
    assert moved
    assert optimization.tensors()["clipping/norms"].isfinite().all()
    assert all(torch.isfinite(tensor).all() for tensor in model.parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_gradients_of_fewer_bits_point_the_same_way(precision):
    parts = [make_part("F", 3)]
    by_precision = []
    for chosen in ("32-true", precision):
        config = tiny_config(n_frames_window=12, precision=chosen)
        model = without_noise(make_model(config))
        optimization = make_optimization(config, model)
        if optimization._scaler is not None:
            optimization._scaler = None  # its scale is not in question here
            optimization._fabric.strategy.precision.scaler = None
        optimization.accumulate(batch_of(*parts), seed=(0,))
        by_precision.append(torch.cat([gradient.flatten() for gradient in gradients(model).values()]))
    assert float(torch.cosine_similarity(*by_precision, dim=0)) > 0.98


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("videos", r"session F, trial 11: the video of a batch holds what is no number: .*first at frame 9"),
        ("responses", r"session F, trial 11: the responses of a batch holds what is no number: .*first at frame 9"),
    ],
)
def test_what_is_no_number_in_a_batch_is_found(variable, message):
    config = tiny_config(n_frames_window=12)
    part = make_part("F", 3)
    array = getattr(part, variable)
    array[(1, 4) if variable == "videos" else (1, 0, 4)] = np.nan
    with pytest.raises(RunError, match=message):
        make_optimization(config, make_model(config)).accumulate(batch_of(part), seed=(0,))


def test_a_rank_takes_every_second_row_and_the_scale_of_the_whole_batch():
    config = tiny_config(n_frames_window=12)
    part = make_part("F", 5)
    whole = without_noise(make_model(config))
    make_optimization(config, whole).accumulate(batch_of(part), seed=(0,))
    by_rank = []
    for rank in range(2):
        model = without_noise(make_model(config))
        make_optimization(config, model, ranks=Ranks(rank, 2)).accumulate(
            batch_of(part, rows=slice(rank, None, 2)), seed=(0,)
        )
        by_rank.append(gradients(model))
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(by_rank[0][name] + by_rank[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_core_and_readouts_can_decay_apart():
    config = tiny_config(
        n_frames_window=12, weight_decay=0.5, core_weight_decay=0.0, learning_rate=0.1, betas=(0.5, 0.5)
    )
    model = without_noise(make_model(config))
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    optimization = make_optimization(config, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimization.step(0.1)
    for name, parameter in model.named_parameters():
        kept = 1.0 if name.startswith("core.") else 1 - 0.1 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * kept, msg=name)


def test_restored_moments_make_the_same_next_step():
    config = tiny_config(n_frames_window=12, ema_decay=0.9, gradient_norm_percentile=50.0)
    model, other = without_noise(make_model(config)), without_noise(make_model(config, seed=5))
    optimization, restored = make_optimization(config, model), make_optimization(config, other)
    for seed in range(3):
        optimization.accumulate(batch_of(make_part("FG"[seed % 2], 2, seed)), seed=(seed,))
        optimization.step(0.01)
    saved = {name: tensor.clone() for name, tensor in optimization.tensors().items()}
    restored.restore(saved, optimization.state())
    for one in (optimization, restored):
        one.accumulate(batch_of(make_part("H", 2, 9)), seed=(9,))
        one.step(0.01)
    found, expected = restored.tensors(), optimization.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_weights_of_another_model_are_refused_by_name():
    config = tiny_config(n_frames_window=12)
    optimization = make_optimization(config, make_model(config))
    tensors = make_optimization(config, make_model(config, "FG"), "FG").tensors()
    with pytest.raises(RunError, match=r"of another model: readouts.H.*: found nothing, expected \("):
        optimization.restore(tensors, optimization.state())
    assert math.isfinite(optimization.accumulate(batch_of(make_part("H", 1)), seed=(0,)).loss)
