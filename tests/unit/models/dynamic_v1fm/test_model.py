"""Dynamic-V1FM, against NumPy, the straightforward way of writing it, and the published numbers."""

from __future__ import annotations

import re
import sys
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn

from fixtures.numpy_networks import elu, linear, part, sample_bilinearly, sigmoid
from fixtures.places import CHECKOUT
from fixtures.small_models import ONE, OTHER, count_parameters, published_neurons, weights_of
from models.config import TrainingConfig, override
from models.dynamic_v1fm import DynamicV1fm, DynamicV1fmConfig, list_ensemble
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset
from models.sliding_windows import SlidingWindows
from sensorium_data.errors import UsageError
from sensorium_data.sessions import Release

#: Windows do not divide the 3 × 3 × 4 tokens, or are longer than an axis of them.
SMALL = DynamicV1fmConfig(
    n_frames=6,
    channels=8,
    patch_size=(2, 4, 4),
    window_size=(2, 4, 3),
    n_blocks=2,
    n_heads=2,
    perceptron_units=5,
    readout_units=4,
    shifter_units=3,
)
SIZE = (11, 14)
N_NEURONS = {ONE: 19, OTHER: 3}
FUSIONS = {
    "plain": {},
    "mean": {"levels": (2, 8)},
    "adaptive": {"levels": (4, 8, 16), "fusion": "adaptive"},
}


def make_model(config, *, dtype=torch.float64, size=SIZE, n_neurons=N_NEURONS):
    """Return a model none of whose weights hides a mistake: nothing is 0, and every part counts."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    neurons = {session: NeuronInfo(n, generator.uniform(-700, 200, (n, 2))) for session, n in n_neurons.items()}
    model = DynamicV1fm(config, neurons, n_input_channels=5, frame_size=size).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def make_inputs(n_trials=2, n_frames=6, size=SIZE, dtype=torch.float64):
    """Return videos, whose further channels are constant over space, and pupil centers."""
    generator = torch.Generator().manual_seed(1)
    videos = torch.randn(n_trials, 5, n_frames, *size, generator=generator, dtype=dtype)
    videos[:, 1:] = videos[:, 1:, :, :1, :1]
    return videos, torch.randn(n_trials, 2, n_frames, generator=generator, dtype=dtype)


# What the model computes, in float64, token by token.


def layer_norm(values, weights):
    centered = values - values.mean(-1, keepdims=True)
    return centered / np.sqrt(values.var(-1, keepdims=True) + 1e-5) * weights["weight"] + weights["bias"]


def attend(tokens, weights, n_heads, window_size):
    """Shifted windows by their definition: a token's window and, in it, which tokens were near it before the shift."""
    size = tokens.shape[:3]
    window = [min(w, s) for w, s in zip(window_size, size, strict=True)]
    shift = [w // 2 if s > w else 0 for w, s in zip(window, size, strict=True)]
    padded_size = [-(-s // w) * w for w, s in zip(window, size, strict=True)]
    padded = np.zeros((*padded_size, tokens.shape[-1]))
    padded[tuple(slice(s) for s in size)] = tokens
    queries, keys, values = np.split(linear(part(weights, "inputs"), padded), 3, axis=-1)
    n = queries.shape[-1] // n_heads
    places = list(product(*(range(s) for s in padded_size)))
    rolled = {at: [(x - s) % p for x, s, p in zip(at, shift, padded_size, strict=True)] for at in places}
    windows = {at: tuple(x // w for x, w in zip(rolled[at], window, strict=True)) for at in places}
    # What came around from the map's start is no neighbor of what was at its end.
    came_around = {at: tuple(s > 0 and x < s for x, s in zip(at, shift, strict=True)) for at in places}
    in_window = {at: [x % w for x, w in zip(rolled[at], window, strict=True)] for at in places}
    out = np.zeros_like(padded)
    for one in places:
        others = [at for at in places if windows[at] == windows[one]]
        for head in range(n_heads):
            channels = slice(head * n, (head + 1) * n)
            scores = []
            for other in others:
                score = queries[one][channels] @ keys[other][channels] / np.sqrt(n)
                # Tokens of a window are numbered as if it were whole, also where it shrinks.
                numbers = [np.ravel_multi_index(in_window[at], window) for at in (one, other)]
                as_whole = [np.unravel_index(number, window_size) for number in numbers]
                distance = [a - b + w - 1 for a, b, w in zip(*as_whole, window_size, strict=True)]
                index = np.ravel_multi_index(distance, [2 * w - 1 for w in window_size])
                mask = 0 if came_around[one] == came_around[other] else -100
                scores.append(score + weights["biases"][index, head] + mask)
            shares = np.exp(np.array(scores) - max(scores))
            out[one][channels] = shares @ np.stack([values[at][channels] for at in others]) / shares.sum()
    return linear(part(weights, "outputs"), out)[tuple(slice(s) for s in size)]


def filter_tokens(tokens, weight, bias):
    """Each channel by its own 3 × 3 × 3 weights; beyond the map is 0."""
    padded = np.pad(tokens, ((1, 1), (1, 1), (1, 1), (0, 0)))
    t, h, w = tokens.shape[:3]
    shifts = product(range(3), repeat=3)
    return bias + sum(padded[a : a + t, b : b + h, c : c + w] * weight[:, 0, a, b, c] for a, b, c in shifts)


def run_core(video_CTHW, weights, config):
    t = config.patch_size[0]
    video, state = video_CTHW[0], video_CTHW[1:, :, 0, 0].T
    padded = np.pad(video, [(0, -s % p) for s, p in zip(video.shape, config.patch_size, strict=True)])
    projection = part(weights, "patches.projection")
    counts = [s // p for s, p in zip(padded.shape, config.patch_size, strict=True)]
    tokens = np.zeros((*counts, config.channels))
    for at in product(*(range(n) for n in counts)):
        box = tuple(slice(x * p, (x + 1) * p) for x, p in zip(at, config.patch_size, strict=True))
        tokens[at] = (projection["weight"][:, 0] * padded[box]).sum(axis=(1, 2, 3)) + projection["bias"]
    tokens = layer_norm(tokens, part(weights, "patches.norm"))
    for block in range(config.n_blocks):
        own = part(weights, f"blocks.{block}")
        hidden = np.tanh(linear(part(own, "state.layers.0"), state))
        code = np.tanh(linear(part(own, "state.layers.2"), hidden))
        tokens = tokens + np.stack([code[i : i + t].ravel() for i in range(0, len(code), t)])[:, None, None]
        tokens = tokens + attend(tokens, part(own, "attention"), config.n_heads, config.window_size)
        values, gates = np.split(linear(part(own, "perceptron.inputs"), tokens), 2, axis=-1)
        hidden = filter_tokens(values * gates * sigmoid(gates), **part(own, "perceptron.neighbors"))
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        tokens = tokens + linear(part(own, "perceptron.outputs"), hidden)
    return np.moveaxis(tokens, -1, 1)


def nearest(n_targets, n_sources):
    scale = np.float32(n_sources) / np.float32(n_targets)
    return [min(int(np.float32(i) * scale), n_sources - 1) for i in range(n_targets)]


def read_out(maps_FCHW, readout, shifter, pupil_F2, config):
    hidden = elu(linear(part(readout, "position_predictor.0"), readout["cortical_positions"]))
    places_N2 = np.tanh(linear(part(readout, "position_predictor.2"), hidden))
    shifts_F2 = pupil_F2
    for layer in (0, 2, 4):
        shifts_F2 = np.tanh(linear(part(shifter, f"mlp.{layer}"), shifts_F2))
    n_neurons = len(places_N2)
    levels = []
    for level in (1, *config.levels):
        features = readout["features" if level == 1 else f"coarse_features.{level}"]
        n_columns = features.shape[1]
        chosen = nearest(n_columns, n_neurons)
        values = np.array(
            [
                [
                    sample_bilinearly(frame, *(places_N2[neuron] + shift)) @ features[:, i]
                    for i, neuron in enumerate(chosen)
                ]
                for frame, shift in zip(maps_FCHW, shifts_F2, strict=True)
            ]
        )
        values = values[:, nearest(n_neurons, n_columns)]
        if level > 1:
            first, last = part(readout, f"refinements.{level}.0"), part(readout, f"refinements.{level}.2")
            hidden = elu(values[..., None] * first["weight"][:, 0, 0] + first["bias"])
            values = hidden @ last["weight"][0, :, 0]
        levels.append(values)
    if config.fusion == "adaptive":
        fusion = part(readout, f"fusions.{len(levels)}")
        means = np.array([level.mean() for level in levels])
        shares = linear(part(fusion, "layers.2"), np.maximum(linear(part(fusion, "layers.0"), means), 0))
        fused = np.tensordot(sigmoid(shares), np.stack(levels), axes=1)
    else:
        fused = np.mean(levels, axis=0)
    return elu(fused + readout["bias"]).T + 1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_predictions_are_what_numpy_makes_of_the_weights(fusion):
    config = SMALL.model_copy(update=FUSIONS[fusion])
    model, (videos, pupil_center) = make_model(config).eval(), make_inputs(1)
    weights = weights_of(model)
    maps = run_core(videos[0].numpy(), part(weights, "core"), config)
    for session in (ONE, OTHER):
        readout, shifter = part(weights, f"readouts.{session}"), part(weights, f"shifters.{session}")
        expected = read_out(maps, readout, shifter, pupil_center[0].numpy().T[-len(maps) :], config)
        with torch.no_grad():
            found = model(videos, pupil_center, session)[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-10)
        assert found.std() > 0.01


@pytest.fixture(scope="module")
def make_reference():
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    try:
        from straightforward.dynamic_v1fm import make_reference
    finally:
        sys.path.remove(str(CHECKOUT / "benchmarks"))
    return make_reference


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-4)])
def test_outputs_and_gradients_are_those_of_the_straightforward_model(make_reference, fusion, dtype, tolerance):
    # Windows of the published proportions: 5 × 6 × 8 tokens.
    config = SMALL.model_copy(
        update={"n_frames": 10, "patch_size": (2, 2, 2), "window_size": (4, 3, 5), **FUSIONS[fusion]}
    )
    model = make_model(config, dtype=dtype, size=(12, 16))
    videos, pupil_center = make_inputs(3, 10, (12, 16), dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    reference = make_reference(model)
    wanted = [(ONE, slice(0, 2)), (OTHER, slice(2, 3))]
    gradients, outputs = [], []
    for one in (model, reference):
        torch.manual_seed(0)
        outputs.append(one.predict_rows(videos, pupil_center, wanted))
        sum(prediction.square().sum() for prediction in outputs[-1]).backward()
        gradients.append({name: parameter.grad for name, parameter in one.named_parameters()})
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for name, found in gradients[0].items():
        expected = gradients[1][name]
        assert (found is None) == (expected is None), name
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    # Without gradients torch's fused attention computes.
    with torch.no_grad():
        evaluated = model.eval()(videos, pupil_center, ONE)
        torch.testing.assert_close(
            evaluated,
            reference.eval().predict_rows(videos, pupil_center, [(ONE, slice(None))])[0],
            rtol=tolerance,
            atol=tolerance,
        )


def test_fused_attention_has_the_same_gradients(monkeypatch):
    # As on a GPU.
    model, inputs = make_model(SMALL), make_inputs()
    results = []
    for is_fused in (False, True):
        monkeypatch.setattr("models.dynamic_v1fm.attention._is_fused", lambda *_, answer=is_fused: answer)
        model.zero_grad()
        torch.manual_seed(0)
        predictions = model(*inputs, ONE)
        predictions.square().sum().backward()
        results.append([predictions.detach(), *(p.grad.clone() for p in model.core.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_16_bits_compute_nearly_the_same(fusion):
    model = make_model(SMALL.model_copy(update=FUSIONS[fusion]), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    inputs = make_inputs(dtype=torch.float32)
    expected = model(*inputs, ONE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(*inputs, ONE)
    found.float().sum().backward()
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_core_computes_the_same():
    model, inputs = make_model(SMALL), make_inputs()
    results = []
    for compiles in (False, True):
        if compiles:
            # What it compiles to takes a compiler of C++; what it traces is the same.
            model.core.compile(backend="aot_eager")
        model.zero_grad()
        torch.manual_seed(0)
        predictions = model(*inputs, ONE)
        predictions.square().sum().backward()
        results.append([predictions.detach(), *(p.grad.clone() for p in model.core.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_published_numbers_of_parameters():
    everybody = published_neurons(Release.OLD, Release.NEW)
    model = DynamicV1fm(get_preset("dynamic-v1fm").model, everybody, n_input_channels=5)
    assert count_parameters(model.core) == 2_273_488
    assert count_parameters(model.readouts) == 34_628_973
    assert count_parameters(model.shifters) == 3_540
    assert count_parameters(model) == 36_906_001
    session_f = {name: info for name, info in everybody.items() if "29515" in name}
    for fusion, n_parameters in (("mean", 5_726_727), ("adaptive", 5_726_863)):
        assert (
            count_parameters(DynamicV1fm(DynamicV1fmConfig(fusion=fusion), session_f, n_input_channels=5))
            == n_parameters
        )


def test_the_published_sizes():
    config = get_preset("dynamic-v1fm").model
    assert (config.n_channels, *config.map_size(36, 64)) == (224, 18, 32)
    assert (config.n_frames, config.n_frames_lost) == (30, 15)
    attention = build_model(get_preset("dynamic-v1fm"), published_neurons()).core.blocks[0].attention
    assert attention.biases.shape == (2535, 4)
    assert attention.relative_index.shape == (392, 392)
    assert sorted(set(attention.relative_index.flatten().tolist())) == list(range(2535))


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = DynamicV1fm(DynamicV1fmConfig(), published_neurons(Release.NEW), n_input_channels=5)
    for name, module in model.core.blocks.named_modules():
        if isinstance(module, nn.Linear):
            assert (module.bias == 0).all(), name
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
    for block in model.core.blocks:
        assert block.attention.biases.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.perceptron.neighbors.weight.abs().max() <= 27**-0.5
    readout = next(iter(model.readouts.values()))
    for features in (readout.features, *readout.coarse_features.values()):
        assert (features == np.float32(1 / 224)).all()
    assert [len(one[0].bias) for one in readout.refinements.values()] == [32, 64, 128, 256]
    assert 0.19 < readout.sigma.abs().max().item() <= 0.2


def test_the_published_recipe():
    preset = get_preset("dynamic-v1fm")
    assert (preset.n_frames_window, preset.batch_size, preset.n_batches_per_step, preset.seed) == (30, 32, 1, 42)
    assert (preset.learning_rate, preset.weight_decay, preset.betas) == (0.001, 0.05, (0.9, 0.999))
    assert (preset.loss_scale, preset.normalization, preset.tiers) == ("dynamic-v1fm", "competition", ("train",))
    assert (preset.warmup_steps, preset.warmup_start_factor) == (600, pytest.approx(1 / 3))
    assert (preset.constant_epochs, preset.max_epochs, preset.min_learning_rate) == (80, 180, 1e-6)
    assert (preset.keeps, preset.max_gradient_norm, preset.gradient_norm_percentile) == ("last", None, None)


def test_whole_trials_are_predicted_by_the_published_windows():
    preset = get_preset("dynamic-v1fm")
    assert preset.prediction_windows == "sliding"
    windows = SlidingWindows(30, n_frames_lost=15, hop=preset.prediction_hop, offset=preset.prediction_offset)
    planned = windows.plan(300)
    by_start = {window.first_frame: np.flatnonzero(window.counts) + window.first_frame + 15 for window in planned}
    # Frames 50 to 289 in windows that start at 35, 50 and so on, and the last ten from the last window.
    assert set(range(35, 261, 15)) < set(by_start)
    assert all(by_start[start].tolist() == list(range(start + 15, start + 30)) for start in range(35, 261, 15))
    assert by_start[270].tolist() == list(range(290, 300))
    assert sorted(np.concatenate(list(by_start.values()))) == list(range(15, 300))


def test_every_prediction_depends_on_frames_of_the_whole_window():
    config = get_preset("dynamic-v1fm-debug").model
    model = make_model(config, size=(36, 64)).eval()
    videos, pupil_center = make_inputs(1, config.n_frames, (36, 64))
    videos.requires_grad_()
    pupil_center.requires_grad_()
    model(videos, pupil_center, ONE)[0, :, 4].sum().backward()
    reached = videos.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist()
    # Frame 8 and 9 are its own token's, which stands for frame 14.
    assert min(reached) == 0
    assert max(reached) == config.n_frames - 1
    assert pupil_center.grad[0].abs().sum(dim=0).nonzero().flatten().tolist() == [14]


def test_levels_that_do_not_count_stay_as_they_are():
    model = make_model(SMALL.model_copy(update={"levels": (4,), "fusion": "adaptive"}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    before = weights_of(model)
    model(*make_inputs(), ONE).sum().backward()
    optimizer.step()
    changed = {name for name, value in weights_of(model).items() if not np.array_equal(value, before[name])}
    own = {
        name.removeprefix(f"readouts.{ONE}.").rpartition(".")[0]
        for name in changed
        if name.startswith(f"readouts.{ONE}")
    }
    assert {name for name in own if name.startswith(("coarse", "refine", "fusion"))} == {
        "coarse_features", "refinements.4.0", "refinements.4.2", "fusions.2.layers.0", "fusions.2.layers.2",
    }  # fmt: skip
    assert f"readouts.{ONE}.coarse_features.4" in changed
    assert f"readouts.{ONE}.coarse_features.2" not in changed


def test_the_penalty_is_of_the_levels_that_count():
    for levels in ((), (2, 16)):
        model = make_model(SMALL.model_copy(update={"levels": levels, "readout_sparsity": 0.5}))
        readout = model.readouts[ONE]
        counted = [readout.features, *(readout.coarse_features[str(level)] for level in levels)]
        expected = 0.5 * sum(np.abs(one.detach().numpy()).sum() for one in counted)
        assert model.session_regularizer(ONE).item() == pytest.approx(expected)


def test_the_ensemble_has_31_different_models():
    preset = get_preset("dynamic-v1fm")
    members = [override(preset, changes).model for changes in list_ensemble()]
    assert len({model.model_dump_json() for model in members}) == len(members) == 31
    assert sum(model.fusion == "adaptive" for model in members) == 15
    assert [model.levels for model in members].count(()) == 1


def test_the_commands_of_the_readme_train_the_ensemble():
    text = (CHECKOUT / "models/dynamic_v1fm/README.md").read_text()
    (levels,), (fusions,) = re.findall(r"for levels in (.*); do", text), re.findall(r"for fusion in (.*); do", text)
    plain, looped = re.findall(r"sensorium train dynamic-v1fm (.*)", text)
    assert "--set" not in plain
    assert re.findall(r"--set (\S+)=\$(\w+)", looped) == [("model.levels", "levels"), ("model.fusion", "fusion")]
    commanded = [
        {"model.levels": chosen, "model.fusion": fusion} for fusion, chosen in product(fusions.split(), levels.split())
    ]
    in_python = list_ensemble()
    assert len(commanded) == 30
    assert all(one in in_python for one in [{}, *commanded])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_frames": 31}, "n_frames 31 must be a multiple of the 2 frames"),
        ({"channels": 222}, "channels 222 must be a multiple of n_heads, 4"),
        ({"levels": (4, 2)}, r"levels \(4, 2\) must be some of \(2, 4, 8, 16\), in this order"),
        ({"levels": (2, 2)}, "in this order"),
        ({"levels": (3,)}, "must be some of"),
        ({"window_size": (8, 7)}, "Field required"),
        ({"readout": "factorized"}, "Input should be 'gaussian'"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        DynamicV1fmConfig(**settings)


def test_windows_and_inputs_that_the_model_cannot_take_are_refused():
    preset = get_preset("dynamic-v1fm")
    with pytest.raises(UsageError, match="windows of 60 frames do not fit the model, which takes 30"):
        override(preset, {"n_frames_window": "60"})
    with pytest.raises(UsageError, match="prediction_windows must be sliding"):
        override(preset, {"prediction_windows": "whole"})
    both = override(preset, {"n_frames_window": "60", "n_frames": "60"})
    assert both.model.n_frames_lost == 30
    with pytest.raises(UsageError, match="found 3 channels, expected 5; set input_layout to vivit"):
        build_model(TrainingConfig.model_validate(preset.model_dump() | {"input_layout": "starter-kit"}), {})
