"""The shifter: from the pupil to a shift of the frame."""

from __future__ import annotations

import numpy as np
import torch

from models.layers import Shifter


def test_it_is_three_linear_layers_with_tanh():
    torch.manual_seed(0)
    shifter = Shifter().double()
    pupil_center = np.random.default_rng(0).normal(size=(11, 2))
    values = pupil_center
    for layer in (0, 2, 4):
        weight, bias = (shifter.state_dict()[f"mlp.{layer}.{part}"].numpy() for part in ("weight", "bias"))
        values = np.tanh(values @ weight.T + bias)
    with torch.no_grad():
        np.testing.assert_allclose(shifter(torch.tensor(pupil_center)), values, atol=1e-12)


def test_the_published_number_of_parameters():
    assert sum(p.numel() for p in Shifter().parameters()) == 57


def test_a_shift_never_exceeds_half_the_frame():
    shift = Shifter()(torch.tensor([[1e6, -1e6], [-1e6, 3.0]]))
    assert shift.shape == (2, 2)
    assert shift.abs().max() <= 1
