"""A plain torch module as a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.adaptation import CoreConfig, CoreModel, adapt
from models.neurons import NeuronInfo
from sensorium_data.errors import UnknownNameError, UsageError

IDENTITY = nn.Identity()
NEURONS = {
    name: NeuronInfo(n, np.random.default_rng(n).normal(size=(n, 2))) for name, n in {"first": 4, "second": 5}.items()
}
VIDEOS, PUPIL = torch.randn(2, 3, 12, 36, 64), torch.randn(2, 2, 12)


class Core(nn.Module):
    """Looks back for four frames.

    Parameters
    ----------
    hidden : int
        Output channels
        of the layer.
    """

    def __init__(self, n_input_channels: int = 1, hidden: int = 2, gain: float | None = None):
        super().__init__()
        self.layer = nn.Conv3d(n_input_channels, hidden, (5, 9, 9))
        self.gain = gain

    def forward(self, videos):
        return self.layer(videos)


class Pair(nn.Module):
    def forward(self, videos):
        return videos, videos


def build(model_class, **settings):
    return model_class(model_class.config_class(**settings), NEURONS, n_input_channels=3)


def test_a_core_gets_a_readout_and_a_shifter_for_each_session():
    model = build(adapt(Core), hidden=6).eval()
    assert model.core.layer.weight.shape == (6, 3, 5, 9, 9)
    assert model.n_frames_lost == 4
    assert model(VIDEOS, PUPIL, "first").shape == (2, 4, 8)
    rows = model.predict_rows(VIDEOS, PUPIL, [("second", slice(0, 1)), ("first", slice(1, 2))])
    assert [tuple(one.shape) for one in rows] == [(1, 5, 8), (1, 4, 8)]
    torch.testing.assert_close(rows[1], model(VIDEOS[1:], PUPIL[1:], "first"))
    assert (rows[0] >= 0).all()
    with pytest.raises(UnknownNameError, match="unknown session of the model"):
        model(VIDEOS, PUPIL, "third")


def test_a_factorized_readout_has_a_mask_of_the_maps_size():
    model = build(adapt(Core), readout="factorized").eval()
    assert model.readouts["first"].mask.shape == (4, 28, 56)
    assert model(VIDEOS, PUPIL, "first").shape == (2, 4, 8)


def test_responses_start_at_their_mean():
    model = build(adapt(Core)).eval()
    nn.init.zeros_(model.core.layer.weight)
    nn.init.zeros_(model.core.layer.bias)
    mean = torch.tensor([0.2, 0.5, 1.0, 3.0])
    model.initialize_readout_bias("first", mean)
    torch.testing.assert_close(model(VIDEOS, PUPIL, "first"), mean[None, :, None].expand(2, 4, 8))


def test_the_pupil_shifts_the_frame_unless_there_is_no_shifter():
    for shifter, moves in ((True, True), (False, False)):
        torch.manual_seed(0)
        model = build(adapt(Core, shifter=shifter)).eval()
        with torch.no_grad():
            same = torch.equal(model(VIDEOS, PUPIL, "first"), model(VIDEOS, PUPIL + 1, "first"))
        assert same is not moves


def test_what_the_constructor_takes_are_settings():
    config_class = adapt(Core).config_class
    assert issubclass(config_class, CoreConfig)
    config = config_class.model_validate({"hidden": "7", "gain": None})
    assert (config.hidden, config.gain, config_class().hidden) == (7, None, 2)
    fields = config_class.model_fields
    assert fields["hidden"].description == "Output channels of the layer."
    assert "n_input_channels" not in fields
    with pytest.raises(ValueError, match="valid integer"):
        config_class(hidden="many")


def test_a_regularizer_is_added_and_is_zero_otherwise():
    assert build(adapt(Core)).regularizer() == 0
    model = build(adapt(Core, regularizer=lambda core: core.layer.bias.square().sum()))
    assert model.regularizer() == model.core.layer.bias.square().sum()
    assert model.regularizer().requires_grad


def test_a_module_that_is_told_the_neurons_is_each_sessions_own():
    def make(n_neurons: int, width: int = 3):
        return nn.Sequential(nn.Flatten(3), nn.LazyLinear(1), nn.Flatten(2), nn.Softplus(), Take(n_neurons))

    class Take(nn.Module):
        def __init__(self, n_neurons):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(n_neurons))

        def forward(self, features):
            return features[:, :1] * self.gain[None, :, None]

    model = build(adapt(make, regularizer=lambda module: module[-1].gain.sum()))
    assert model.n_frames_lost == 0
    assert model(VIDEOS, PUPIL, "second").shape == (2, 5, 12)
    assert model.regularizer() == 9


def test_the_probe_changes_nothing():
    class Normed(Core):
        def __init__(self, n_input_channels: int = 1):
            super().__init__(n_input_channels)
            self.norm = nn.BatchNorm3d(2)

        def forward(self, videos):
            return self.norm(self.layer(videos)) + torch.rand(()).to(videos.device)

    torch.manual_seed(0)
    model = build(adapt(Normed))
    assert model.core.norm.num_batches_tracked == 0
    assert model.core.training
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    again = build(adapt(Normed))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(model.core.layer.weight, again.core.layer.weight)


def test_a_core_of_a_class():
    class Model(CoreModel):
        def make_core(self, n_input_channels):
            return nn.Conv3d(n_input_channels, self.config.shifter_units, (3, 5, 5))

    assert build(Model).n_frames_lost == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda hidden: nn.Identity(), "takes hidden, which is no setting: found no default"),
        (lambda code=1: nn.Identity(), "takes code, which is no setting: found the name of something that all"),
        (lambda layer=IDENTITY: layer, "cannot be read off what it takes"),
    ],
)
def test_what_cannot_be_a_setting_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        adapt(make)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Flatten(), r"no feature map|does not return a feature map for each frame: found shape \(1, "),
        (lambda: Pair(), "returns no tensor: found tuple"),
        (lambda: 3, "makes no torch module: found <lambda> returns a int"),
    ],
)
def test_a_core_that_is_none_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        build(adapt(make))
