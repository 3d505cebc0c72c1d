"""What every preset's model keeps to, whoever wrote it: a preset that is added is tested here without further ado.

Whatever needs many passes is tested with the small sizes alone, which are the same code.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from models.layouts import find_layout
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset, preset_names
from sensorium_data.errors import UnknownNameError, UsageError

ONE, OTHER = "dynamic1-2-3-Video-aa", "dynamic4-5-6-Video-bb"
N_NEURONS = {ONE: 5, OTHER: 3}
PRESETS = preset_names()
SMALL = [name for name in PRESETS if name.endswith("-debug")]
#: So many frames are predicted where a window may have any length.
N_PREDICTED = 4


def make_model(name, seed=0):
    torch.manual_seed(seed)
    generator = np.random.default_rng(0)
    neurons = {session: NeuronInfo(n, generator.uniform(-700, 200, (n, 2))) for session, n in N_NEURONS.items()}
    model = build_model(get_preset(name), neurons).eval()
    with torch.no_grad():
        # Readouts that begin with weights near 0 would hide what they look at.
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith("readouts."):
                parameter.normal_(std=0.3)
    return model


def make_inputs(name, n_trials=1):
    config = get_preset(name)
    layout = find_layout(config.input_layout)
    n_frames = config.model.required_window or config.model.n_frames_lost + N_PREDICTED
    generator = torch.Generator().manual_seed(1)
    shape = (n_trials, len(layout.channels), n_frames, *layout.frame_size)
    return torch.randn(shape, generator=generator), torch.randn(n_trials, 2, n_frames, generator=generator)


@cache
def predict_once(name):
    """Return a model, its inputs of one trial, and what it predicts of them."""
    model, inputs = make_model(name), make_inputs(name)
    with torch.no_grad():
        return model, inputs, model(*inputs, ONE)


@pytest.mark.parametrize("name", PRESETS)
def test_predictions_are_of_all_neurons_in_all_frames_but_those_lost_and_not_negative(name):
    config = get_preset(name)
    model, (videos, _), predictions = predict_once(name)
    assert model.n_frames_lost == config.model.n_frames_lost < config.n_frames_window
    assert predictions.shape == (1, N_NEURONS[ONE], videos.shape[2] - model.n_frames_lost)
    assert torch.isfinite(predictions).all()
    assert (predictions >= 0).all()
    assert len(torch.unique(predictions)) > 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_later_frame_changes_earlier_predictions_unless_the_model_is_causal(name):
    model, (videos, pupil_center), predictions = predict_once(name)
    assert model.is_causal is not None, "a preset's model says whether it is causal"
    changed_videos, changed_pupil = videos.clone(), pupil_center.clone()
    changed_videos[:, :, -2] += 3
    changed_pupil[..., -2] += 3
    with torch.no_grad():
        changed = model(changed_videos, changed_pupil, ONE)
    difference = (changed - predictions).abs().amax(dim=(0, 1))
    assert difference[-2] > 1e-4, "the frame's own prediction does not depend on it"
    if model.is_causal:
        # Not a bit: the same sums are formed of the same numbers.
        assert (difference[:-2] <= 1e-6).all()
    else:
        assert difference[:-2].max() > 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_penalties_are_finite_scalars_that_can_be_differentiated(name):
    model, _, _ = predict_once(name)
    penalties = [model.regularizer(), *(model.session_regularizer(session) for session in N_NEURONS)]
    for penalty in penalties:
        if penalty is not None:
            assert penalty.shape == ()
            assert 0 <= penalty.item() < float("inf")
    assert penalties[0] is not None


@pytest.mark.parametrize("name", PRESETS)
def test_the_weights_are_all_that_a_model_is(name):
    model, inputs, predictions = predict_once(name)
    other = make_model(name, seed=1)
    if name in SMALL:
        with torch.no_grad():
            assert not torch.equal(other(*inputs, ONE), predictions)
    other.load_state_dict(model.state_dict(), strict=True)
    for found, expected in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(found, expected)
    if name in SMALL:
        with torch.no_grad():
            torch.testing.assert_close(other(*inputs, ONE), predictions, rtol=0, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_what_has_no_prediction_is_refused_in_the_users_words(name):
    model, (videos, pupil_center), _ = predict_once(name)
    with pytest.raises(UnknownNameError, match="did you mean dynamic1-2-3-Video-aa"):
        model(videos, pupil_center, ONE[:-1])
    n_lost, required = model.n_frames_lost, get_preset(name).model.required_window
    if required is not None:
        for n_frames in (n_lost, required - 1):
            with pytest.raises(UsageError, match=f"found {n_frames} frames?, expected {required}"):
                model(videos[:, :, :n_frames], pupil_center[..., :n_frames], ONE)
    elif n_lost:
        with pytest.raises(UsageError, match=f"expected at least {n_lost + 1}"):
            model(videos[:, :, :n_lost], pupil_center[..., :n_lost], ONE)


@pytest.mark.parametrize("name", SMALL)
def test_sessions_and_trials_of_a_batch_do_not_depend_on_each_other(name):
    model, (videos, pupil_center) = make_model(name), make_inputs(name, n_trials=3)
    with torch.no_grad():
        together = model.predict_rows(videos, pupil_center, [(OTHER, slice(2, 3)), (ONE, slice(0, 2))])
        alone = model(videos[2:], pupil_center[2:], OTHER), model(videos[:2], pupil_center[:2], ONE)
    assert [len(prediction) for prediction in together] == [1, 2]
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_trains_the_core_and_its_own_session(name):
    model = make_model(name).train()
    penalties = [model.regularizer(), model.session_regularizer(ONE)]
    predictions = model(*make_inputs(name, n_trials=2), ONE)
    (predictions.square().sum() + sum(penalty for penalty in penalties if penalty is not None)).backward()
    for parameter_name, parameter in model.named_parameters():
        if OTHER in parameter_name or not parameter.requires_grad:
            assert parameter.grad is None, parameter_name
        else:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.core.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_readouts_start_from_the_mean_responses(name):
    model, inputs = make_model(name), make_inputs(name)
    predictions = []
    for mean in (0.5, 2.0):
        model.initialize_readout_bias(ONE, torch.full((N_NEURONS[ONE],), mean))
        with torch.no_grad():
            predictions.append(model(*inputs, ONE))
    assert (predictions[1] > predictions[0]).all()
