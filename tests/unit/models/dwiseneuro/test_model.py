"""DwiseNeuro, against NumPy, the straightforward way of writing it, and the published numbers."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from fixtures.argus_files import SMALL, make_state, predict_in_numpy
from fixtures.places import CHECKOUT
from fixtures.small_models import ONE, count_parameters, published_neurons
from models.checkpoints import convert_weights, find_format
from models.dwiseneuro import DwiseNeuro, DwiseNeuroConfig
from models.neurons import NeuronInfo
from models.registry import get_preset
from sensorium_data.sessions import Release, Tier, find_session

SESSIONS = [find_session(alias).name for alias in "FG"]
N_NEURONS = {SESSIONS[0]: 5, SESSIONS[1]: 4}
CONFIG = DwiseNeuroConfig(
    channels=SMALL.features,
    strides=SMALL.strides,
    expansion=SMALL.expansion,
    squeeze_reduction=SMALL.reduction,
    cortex_channels=SMALL.cortex,
    drop_path=0.0,
    readout_dropout=0.0,
)
#: Height and width of the videos; one of them becomes odd on the way.
SIZE = (8, 10)


@pytest.fixture(scope="module")
def make_reference():
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    try:
        from straightforward.dwiseneuro import make_reference
    finally:
        sys.path.remove(str(CHECKOUT / "benchmarks"))
    return make_reference


def make_model(config=CONFIG, dtype=torch.float64):
    torch.manual_seed(0)
    neurons = {session: NeuronInfo(n, np.zeros((n, 2))) for session, n in N_NEURONS.items()}
    model = DwiseNeuro(config, neurons).to(dtype)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1:
                tensor.normal_(0.5, 0.3)
    return model


def make_videos(n_windows=3, n_frames=7, dtype=torch.float64):
    """Raw pixels and behavior."""
    generator = torch.Generator().manual_seed(1)
    return 80 + 50 * torch.randn(n_windows, 5, n_frames, *SIZE, generator=generator, dtype=dtype)


def predict(model, videos, wanted=None):
    return model.predict_rows(videos, videos[:, 3:, :, 0, 0], wanted or [(SESSIONS[0], slice(None))])


def test_predictions_are_what_numpy_makes_of_the_published_weights(tmp_path):
    model = make_model().eval()
    state = make_state(SMALL, tuple(N_NEURONS.values()))
    layout = find_format("argus").layout_of(CONFIG)
    wanted = list(layout.list_weights(layout.structure_of(CONFIG, {name: name for name in SESSIONS})))
    shapes = {name: value.float() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(convert_weights(state, wanted, shapes, title="", path=tmp_path))
    videos = (make_videos() - 80) / 50
    with torch.no_grad():
        found = predict(model, videos, [(session, slice(None)) for session in SESSIONS])
    for number, n_neurons in enumerate(N_NEURONS.values()):
        for window in range(len(videos)):
            expected = predict_in_numpy(SMALL, state, videos[window].numpy(), number, n_neurons)
            # Positions are encoded in 32 bits.
            np.testing.assert_allclose(found[number][window], expected, rtol=1e-5)
        assert found[number].std() > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-4)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", ["one at a time", "all at once", "as it is compiled"])
def test_outputs_and_gradients_are_those_of_the_straightforward_model(
    make_reference, monkeypatch, dtype, tolerance, training, way
):
    if way == "one at a time":
        monkeypatch.setattr("models.dwiseneuro.fused._CHUNK_BYTES", 1)
    elif way == "as it is compiled":
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    model = make_model(dtype=dtype).train(training)
    reference = make_reference(model)
    # A session in two parts, as distillation asks for it.
    wanted = [(SESSIONS[0], slice(0, 2)), (SESSIONS[1], slice(2, 3)), (SESSIONS[1], slice(0, 2))]
    results = []
    for one in (model, reference):
        videos = make_videos(dtype=dtype).requires_grad_()
        predictions = predict(one, videos, wanted)
        sum((part.square() / number).sum() for number, part in enumerate(predictions, start=1)).backward()
        results.append((predictions, videos.grad, {name: p.grad for name, p in one.named_parameters()}))
    (found, of_videos, of_weights), (expected, of_videos_expected, of_weights_expected) = results
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=0)
    scale = of_videos_expected.abs().max().item()
    torch.testing.assert_close(of_videos, of_videos_expected, rtol=tolerance, atol=tolerance * scale)
    assert of_weights.keys() == of_weights_expected.keys()
    for name, gradient in of_weights.items():
        # In training, biases before a batch norm have no effect: their gradients are rounding.
        layer = max(of_weights_expected[other].abs().max().item() for other in (name, name.replace("bias", "weight")))
        torch.testing.assert_close(
            gradient, of_weights_expected[name], rtol=tolerance, atol=tolerance * layer, msg=name
        )
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_maps_in_16_bits_are_close_to_those_in_32(training):
    model, videos = make_model(dtype=torch.float32).train(training), make_videos(dtype=torch.float32)
    exact = predict(model, videos)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = predict(model, videos)[0]
    assert not torch.equal(rounded.float(), exact)
    correlation = torch.corrcoef(torch.stack([rounded.float().flatten(), exact.flatten()]))[0, 1]
    assert correlation > 0.99
    rounded.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for name, p in model.named_parameters() if SESSIONS[1] not in name)


@pytest.mark.parametrize(
    ("preset", "n_blocks", "total", "n_readouts"),
    [
        ("dwiseneuro", 3_673_404, 170_656_070, 161_580_042),
        ("dwiseneuro-distilled", 3_075_736, 170_058_402, 161_580_042),
    ],
)
def test_the_published_numbers_of_parameters(preset, n_blocks, total, n_readouts):
    with torch.device("meta"):
        model = DwiseNeuro(get_preset(preset).model, published_neurons(Release.NEW, Release.OLD))
    n_cortex = count_parameters(model.core.cortex)
    assert n_cortex == 5_402_624
    assert count_parameters(model.core) - n_cortex == n_blocks
    assert count_parameters(model.readouts) == n_readouts
    assert count_parameters(model) == total


def test_the_published_sizes_of_the_maps():
    config = get_preset("dwiseneuro").model
    blocks = list(config.list_blocks())
    side, sides = 64, []
    for block in blocks:
        side = math.ceil(side / block.stride)
        sides.append(side)
    assert sides == [32, 32, 32, 32, 16, 16, 16, 8, 8]
    assert [block.n_out for block in blocks] == [64, 64, 64, 128, 128, 128, 256, 256, 256]
    assert {block.n_squeezed for block in blocks} == {14, 28, 56}
    assert [round(block.drop_path, 4) for block in blocks[::4]] == [0, 0.0444, 0.0889]


def test_the_published_recipe():
    basic, distilled = get_preset("dwiseneuro"), get_preset("dwiseneuro-distilled")
    assert (basic.model.expansion, distilled.model.expansion) == (7, 6)
    assert (basic.distillation_ratio, distilled.distillation_ratio) == (None, 0.36)
    for recipe in (basic, distilled):
        assert (recipe.n_frames_window, recipe.window_stride) == (16, 2)
        assert (recipe.batch_size, recipe.n_windows_per_session, recipe.session_balance) == (32, 7200, "mixed")
        assert (recipe.learning_rate, recipe.min_learning_rate, recipe.weight_decay) == (0.0024, 2.4e-5, 0.05)
        assert (recipe.warmup_epochs, recipe.max_epochs, recipe.keeps) == (3, 21, "last")
        assert (recipe.cutmix_probability, recipe.cutmix_alpha, recipe.ema_decay) == (0.5, 1, 0.999)
        assert (recipe.n_folds, set(recipe.tiers), recipe.precision) == (7, set(Tier), "16-mixed")
        assert (recipe.prediction_windows, recipe.prediction_hop) == ("sliding", 1)
        assert (recipe.model.softplus_beta, recipe.model.readout_dropout, recipe.model.drop_path) == (0.07, 0.4, 0.1)


def test_weights_start_with_the_variance_of_their_fan_out():
    torch.manual_seed(0)
    model = DwiseNeuro(DwiseNeuroConfig(), {ONE: NeuronInfo(101, np.zeros((101, 2)))})
    block = model.core.blocks[4]
    for convolution, fan_out in (
        (block.expand, 896),
        (block.space, 9),
        (block.time, 5),
        (block.project, 128),
        (model.core.cortex[2].convolution, 2048),
        (model.readouts[ONE], 51),
    ):
        assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
    assert (model.readouts[ONE].bias == 0).all()
    assert (block.squeeze.bias == 0).all()
    # Whatever the channels are, a sum of 0 makes this.
    model.initialize_readout_bias(ONE, torch.full((101,), 3.0))
    assert (model.readouts[ONE].bias == 0).all()
    assert torch.nn.functional.softplus(torch.zeros(()), 0.07).item() == pytest.approx(math.log(2) / 0.07)


def test_readouts_of_odd_sessions_have_a_row_that_is_nobodys():
    model = make_model().eval()
    readout = model.readouts[SESSIONS[0]]
    assert readout.weight.shape == (6, 8, 1)
    before = predict(model, make_videos())[0]
    with torch.no_grad():
        readout.weight[5] += 1
        readout.bias[5] += 1
    assert torch.equal(predict(model, make_videos())[0], before)
    assert before.shape[1] == 5


def test_a_readout_drops_channels_of_whole_windows():
    readout = make_model(CONFIG.model_copy(update={"readout_dropout": 0.4})).readouts[SESSIONS[1]].train()
    with torch.no_grad():
        readout.weight.fill_(1.0)
        readout.bias.zero_()
    torch.manual_seed(0)
    sums = readout(torch.ones(500, 3, 16, dtype=torch.float64)) * readout.beta
    n_kept = (sums.expm1().log() / readout.beta * 0.6)[:, [0, 2]]
    # Each half of the neurons sees half of the channels, which are the same at all frames.
    assert torch.allclose(n_kept, n_kept.round(), atol=1e-6)
    assert (n_kept == n_kept[..., :1]).all()
    assert n_kept.mean().item() == pytest.approx(0.6 * 8, rel=0.03)


def test_windows_skip_layers_in_training():
    layer = make_model(CONFIG.model_copy(update={"drop_path": 0.5})).core.cortex[0].train()
    torch.manual_seed(0)
    channels = torch.randn(400, 2, CONFIG.channels[-1], dtype=torch.float64)
    shortcut = layer.shortcut_norm.normalize(channels.flatten(0, 1)[:, : layer.convolution.out_channels])
    made = layer(channels) - shortcut.view(400, 2, -1)
    layer.drop_path = 0.0
    always = layer(channels) - shortcut.view(400, 2, -1)
    is_skipped = made.abs().amax((1, 2)) < 1e-12
    assert is_skipped.double().mean().item() == pytest.approx(0.5, abs=0.08)
    torch.testing.assert_close(made[~is_skipped], 2 * always[~is_skipped])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (2, 1)}, "must be one for each block"),
        ({"spatial_kernel": 4}, "spatial_kernel 4 must be odd"),
        ({"temporal_kernel": 2}, "temporal_kernel 2 must be odd"),
        ({"cortex_groups": 3}, "cortex_groups 3 do not divide 256 channels"),
        ({"channels": (64,)}, "at least 2 items"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        DwiseNeuroConfig(**settings)


def test_a_prediction_depends_on_all_frames_of_its_window():
    model = make_model().eval()
    videos = make_videos(1, 16).requires_grad_()
    predict(model, videos)[0][0, :, 5].sum().backward()
    assert (videos.grad[0].abs().sum((0, 2, 3)) > 0).all()
