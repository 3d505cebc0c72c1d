"""The recurrent layer, against its equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import convolve, part, sigmoid
from models.layers import ConvolutionalGru

N_IN, N_OUT, KERNEL, HEIGHT, WIDTH = 3, 2, 3, 5, 6


def make_layer(kernel=KERNEL):
    torch.manual_seed(0)
    layer = ConvolutionalGru(N_IN, N_OUT, kernel).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return layer


def make_maps(n_trials=2, n_frames=4):
    return torch.randn(n_trials, n_frames, N_IN, HEIGHT, WIDTH, dtype=torch.float64)


def run_in_numpy(maps, weights, kernel=KERNEL):
    def apply(name, values):
        return convolve(values, **part(weights, name), padding=kernel // 2)

    state = np.zeros((len(maps), N_OUT, *maps.shape[-2:]))
    states = []
    for frame in np.moveaxis(maps, 1, 0):
        update = sigmoid(apply("update_input", frame) + apply("update_hidden", state))
        reset = sigmoid(apply("reset_input", frame) + apply("reset_hidden", state))
        candidate = np.tanh(apply("candidate_input", frame) + apply("candidate_hidden", reset * state))
        state = (1 - update) * state + update * candidate
        states.append(state)
    return np.stack(states, axis=1)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_states_follow_the_equations(kernel):
    layer, maps = make_layer(kernel), make_maps()
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        found = layer(maps).numpy()
    np.testing.assert_allclose(found, run_in_numpy(maps.numpy(), weights, kernel), atol=1e-12)


def test_a_state_depends_on_its_own_frame_and_all_before_it():
    layer, maps = make_layer(), make_maps(1, 6).requires_grad_()
    layer(maps)[0, 3].sum().backward()
    assert maps.grad[0].abs().sum(dim=(1, 2, 3)).nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_trials_do_not_depend_on_each_other():
    layer, maps = make_layer(), make_maps(3)
    with torch.no_grad():
        torch.testing.assert_close(layer(maps), torch.cat([layer(maps[[trial]]) for trial in range(3)]))


def test_convolutions_start_from_xavier_and_no_bias():
    torch.manual_seed(0)
    layer = ConvolutionalGru(32, 24, 5)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
            continue
        n_in = 32 if "input" in name else 24
        # √(2 / (fan in + fan out)), normally distributed.
        assert parameter.std().item() == pytest.approx(np.sqrt(2 / (25 * (n_in + 24))), rel=0.02), name
        assert parameter.abs().max() > 3.5 * parameter.std(), name


def test_the_published_number_of_parameters():
    for kernel, expected in ((7, 1_204_608), (9, 1_991_040)):
        assert sum(p.numel() for p in ConvolutionalGru(64, 64, kernel).parameters()) == expected


def test_states_are_summed_in_32_bits_where_convolutions_have_16():
    layer = make_layer().float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        states = layer(make_maps().bfloat16())
    assert states.dtype == torch.float32


def test_a_kernel_that_would_change_the_size_of_the_map_is_refused():
    with pytest.raises(ValueError, match="even size 4"):
        ConvolutionalGru(2, 2, 4)
