"""ViV1T, against NumPy and the published numbers."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import elu, linear, part, read_out_gaussian
from fixtures.places import CHECKOUT
from fixtures.small_models import ONE, OTHER, SIZE, count_parameters, published_neurons, weights_of
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset
from models.vivit import Vivit, VivitConfig
from models.vivit.rotary import RotaryPositions
from sensorium_data.errors import UsageError
from sensorium_data.sessions import Release

N_FRAMES = 7
_SIZES = {
    "patch_frames": 3,
    "patch_size": 4,
    "patch_stride": 3,
    "embedding_size": 8,
    "n_spatial_blocks": 2,
    "n_temporal_blocks": 2,
    "n_heads": 2,
    "head_size": 4,
    "hidden_units": 6,
    "max_frames": 9,
    "patch_dropout": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "drop_path": 0.0,
}
OF_2023 = VivitConfig(**_SIZES)
CAUSAL = VivitConfig(
    **_SIZES
    | {
        "pads_time": True,
        "activation": "relu",
        "is_causal": True,
        "positions": "rotary",
        "n_registers": 2,
        "encodes_state": False,
        "output": "elu1",
    }
)
CONFIGS = {"2023": OF_2023, "causal": CAUSAL}


def make_model(config, dtype=torch.float64):
    """A model of two sessions none of whose weights hides a mistake."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    neurons = {session: NeuronInfo(n, generator.uniform(-700, 200, (n, 2))) for session, n in ((ONE, 6), (OTHER, 3))}
    model = Vivit(config, neurons, n_input_channels=5, frame_size=SIZE).to(dtype).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name or name.endswith(("features", "bias")):
                tensor.normal_(std=0.3)
            elif "fused" in name or "_out" in name:
                tensor.normal_(std=0.5)
    return model


def make_inputs(n_trials=2, n_frames=N_FRAMES, dtype=torch.float64):
    """Videos with planes that are constant over a frame, and pupil centers."""
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(n_trials, 1, n_frames, *SIZE, generator=generator, dtype=dtype)
    state = torch.randn(n_trials, 4, n_frames, generator=generator, dtype=dtype)
    planes = state[..., None, None].expand(*state.shape, *SIZE)
    return torch.cat([video, planes], dim=1), state[:, 2:]


def layer_norm(values, weights):
    centered = values - values.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt(values.var(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights["weight"] + weights["bias"]


def turn(values, middle):
    """Rotate the pairs (j, j + D/2) of (token, number) by their token's place, and scale them."""
    turned = np.array(values)
    half = values.shape[1] // 2
    for place, row in enumerate(values):
        for j in range(half):
            angle = place * 10_000 ** (-j / half)
            scale = ((2 * j + 0.4 * 2 * half) / (1.4 * 2 * half)) ** ((place - middle) / 512)
            turned[place, j] = scale * (row[j] * np.cos(angle) - row[j + half] * np.sin(angle))
            turned[place, j + half] = scale * (row[j + half] * np.cos(angle) + row[j] * np.sin(angle))
    return turned


def run_block(tokens, weights, config, middle, *, is_causal):
    """One block on a row of tokens, (token, number), registers last."""
    n_inner = config.n_heads * config.head_size
    fused = layer_norm(tokens, part(weights, "norm")) @ weights["fused.weight"].T
    queries, keys, values, hidden = np.split(fused, [n_inner, 2 * n_inner, 3 * n_inner], axis=1)
    n_placed = len(tokens) - config.n_registers
    attended = []
    for head in np.split(np.arange(n_inner), config.n_heads):
        q, k = np.array(queries[:, head]), np.array(keys[:, head])
        if config.positions == "rotary":
            q[:n_placed], k[:n_placed] = turn(q[:n_placed], middle), turn(k[:n_placed], middle)
        logits = q @ k.T / np.sqrt(config.head_size)
        if is_causal:
            logits[np.triu_indices(len(logits), 1)] = -np.inf
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        attended.append(shares / shares.sum(axis=1, keepdims=True) @ values[:, head])
    gelu = np.vectorize(lambda x: torch.nn.functional.gelu(torch.tensor(x, dtype=torch.float64)).item())
    active = gelu(hidden) if config.activation == "gelu" else np.maximum(hidden, 0)
    return (
        tokens
        + np.concatenate(attended, axis=1) @ weights["attention_out.weight"].T
        + active @ weights["hidden_out.weight"].T
    )


def run_core(video_CTHW, core, config):
    """Maps, (time, number, row, column), patch by patch."""
    k, size, stride = config.patch_frames, config.patch_size, config.patch_stride
    if config.pads_time:
        video_CTHW = np.pad(video_CTHW, ((0, 0), (k - 1, 0), (0, 0), (0, 0)))
    n_frames = video_CTHW.shape[1] - k + 1
    rows, columns = config.map_size(*SIZE)
    tokens = np.empty((n_frames, rows * columns, config.embedding_size))
    for t in range(n_frames):
        for place in range(rows * columns):
            y, x = place // columns * stride, place % columns * stride
            patch = video_CTHW[:, t : t + k, y : y + size, x : x + size].reshape(-1)
            projected = linear(part(core, "patches.linear"), layer_norm(patch, part(core, "patches.norm")))
            tokens[t, place] = layer_norm(projected, part(core, "patches.token_norm"))
    if config.positions == "learned":
        tokens += core["spatial_positions"] + core["temporal_positions"][:n_frames, None]
    n_places, n_times = rows * columns, max(n_frames, config.max_frames - config.n_frames_lost)

    def transform(row, name, n_blocks, middle, registers, *, is_causal):
        row = np.concatenate([row, core[registers]]) if config.n_registers else row
        n_tokens = len(row) - config.n_registers
        for block in range(n_blocks):
            row = run_block(row, part(core, f"{name}.blocks.{block}"), config, middle, is_causal=is_causal)
        return row[:n_tokens]

    for t in range(n_frames):
        tokens[t] = transform(
            tokens[t], "over_space", config.n_spatial_blocks, n_places // 2, "spatial_registers", is_causal=False
        )
    for place in range(n_places):
        tokens[:, place] = transform(
            tokens[:, place],
            "over_time",
            config.n_temporal_blocks,
            n_times // 2,
            "temporal_registers",
            is_causal=config.is_causal,
        )
    return np.moveaxis(tokens, 2, 1).reshape(n_frames, -1, rows, columns)


def predict_in_numpy(model, video_CTHW, pupil_2T, session):
    config, weights = model.config, weights_of(model)
    maps = run_core(video_CTHW, part(weights, "core"), config)
    state = None
    if config.encodes_state:
        encoder = part(weights, f"state_encoders.{session}.mlp")
        hidden = layer_norm(linear(part(encoder, "0"), video_CTHW[1:, -len(maps) :, 0, 0].T), part(encoder, "1"))
        hidden = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
        state = np.tanh(linear(part(encoder, "4"), hidden))
    values = read_out_gaussian(
        maps,
        part(weights, f"readouts.{session}"),
        part(weights, f"shifters.{session}"),
        pupil_2T.T[-len(maps) :],
        state_FC=state,
    ).T
    return np.exp(values) if config.output == "exp" else elu(values) + 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_predictions_are_what_numpy_makes_of_the_weights(kind):
    model, (videos, pupil) = make_model(CONFIGS[kind]), make_inputs(1)
    with torch.no_grad():
        found = model(videos, pupil, OTHER)[0].numpy()
    assert found.shape == (3, N_FRAMES - model.n_frames_lost)
    np.testing.assert_allclose(found, predict_in_numpy(model, videos[0].numpy(), pupil[0].numpy(), OTHER), rtol=1e-9)


@pytest.fixture(scope="module")
def straightforward():
    path = CHECKOUT / "benchmarks/straightforward/vivit.py"
    spec = importlib.util.spec_from_file_location("straightforward_vivit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("drop_path", [0.1, 0.5])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_straightforward_way_predicts_the_same_with_the_same_gradients(kind, drop_path, straightforward):
    model = make_model(CONFIGS[kind].model_copy(update={"drop_path": drop_path, "token_dropout": 0.2}))
    reference = straightforward.make_reference(model)
    videos, pupil = make_inputs(3)
    for training in (False, True):
        results = []
        for one in (model.train(training), reference.train(training)):
            # Rows that skip are drawn alike.
            torch.manual_seed(3)
            one.zero_grad()
            predictions = one.predict_rows(videos, pupil, [(ONE, slice(0, 2)), (OTHER, slice(2, 3))])
            sum(one.square().sum() for one in predictions).backward()
            results.append((predictions, {name: p.grad for name, p in one.named_parameters()}))
        (found, gradients), (expected, expected_gradients) = results
        for own, other in zip(found, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
        for name, gradient in expected_gradients.items():
            if gradient is not None:
                torch.testing.assert_close(gradients[name], gradient, rtol=1e-7, atol=1e-9, msg=name)


def test_attention_in_32_bits_is_the_plain_formula(straightforward):
    model = make_model(CAUSAL, torch.float32)
    videos, pupil = make_inputs(1, dtype=torch.float32)
    with torch.no_grad():
        found = model(videos, pupil, ONE)
        (expected,) = straightforward.make_reference(model).predict_rows(videos, pupil, [(ONE, slice(None))])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_the_blocks_of_the_core_compute_in_16_bits():
    model = make_model(OF_2023, torch.float32)
    videos, pupil = make_inputs(1, dtype=torch.float32)
    maps_BTCHW = torch.randn(1, N_FRAMES - 2, 8, *OF_2023.map_size(*SIZE))

    def compute():
        state_BTC = model.encode_state(videos, ONE)
        read = model.read_out(maps_BTCHW, pupil[..., 2:].transpose(1, 2), ONE, state_BTC)
        return {"patches": model.core.patches(videos), "state": state_BTC, "read": read, "core": model.core(videos)}

    with torch.no_grad():
        exact = compute()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = compute()
    assert {name for name, value in exact.items() if torch.equal(found[name], value)} == {"patches", "state", "read"}


@pytest.mark.parametrize(
    ("preset", "core", "readouts", "totals"),
    [
        ("vivit", 2_916_074, 9_361_721, (7_668_297, 12_278_365)),
        ("vivit-causal", 3_787_042, 9_227_321, (8_472_065, 13_014_933)),
    ],
)
def test_the_published_numbers_of_parameters(preset, core, readouts, totals):
    config = get_preset(preset)
    with torch.device("meta"):
        new, every = (build_model(config, published_neurons(*r)) for r in ((Release.NEW,), tuple(Release)[:2]))
    assert (count_parameters(new), count_parameters(every)) == totals
    assert count_parameters(every.core) == core
    assert count_parameters(every.readouts) + count_parameters(every.state_encoders) == readouts
    assert count_parameters(every.shifters) == 570
    blocks = [count_parameters(part) for part in (every.core.over_space, every.core.over_time)]
    assert blocks == ([801_696, 1_336_160] if preset == "vivit" else [1_709_120, 1_709_120])


def test_the_published_sizes():
    old, new = get_preset("vivit").model, get_preset("vivit-causal").model
    assert (old.map_size(36, 64), old.n_frames_lost) == ((15, 29), 24)
    assert (new.map_size(36 + 5, 64 + 5), new.n_frames_lost) == ((18, 32), 0)
    with torch.device("meta"):
        core = build_model(get_preset("vivit"), published_neurons(Release.NEW)).core
    assert core.spatial_positions.shape == (435, 112)
    assert core.temporal_positions.shape == (276, 112)
    assert core.patches.norm.normalized_shape == (6125,)


def test_the_published_recipes():
    old, new = get_preset("vivit"), get_preset("vivit-causal")
    assert old.learning_rate * old.core_learning_rate_factor == pytest.approx(0.0048)
    assert (old.learning_rate, old.weight_decay, old.core_weight_decay) == (0.0036, 0.3939, 0.1789)
    assert (old.n_frames_window, old.batch_size, old.loss, old.correlation_weight) == (
        140,
        6,
        "poisson-correlation",
        1000,
    )
    assert (old.early_stopping_patience, old.n_rounds, old.plateau_factor, old.collapse_score) == (5, 3, 0.3, 0.05)
    assert len(old.tiers) == 5
    assert new.learning_rate * new.core_learning_rate_factor == pytest.approx(0.0126)
    assert (new.learning_rate, new.weight_decay, new.core_weight_decay) == (0.0073, 0.6893, 0.0783)
    assert (new.n_frames_window, new.batch_size, new.optimizer, new.schedule_free_warmup_steps) == (
        300,
        1,
        "schedule-free-adamw",
        400,
    )
    assert (new.gradient_norm_percentile, new.early_stopping_patience, new.n_rounds) == (10, 10, 1)
    assert new.tiers == ("train",)


def test_weights_start_as_published():
    torch.manual_seed(0)
    core = build_model(get_preset("vivit"), published_neurons(Release.NEW)).core
    assert core.over_space.blocks[0].fused.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert core.spatial_positions.std().item() == pytest.approx(1, rel=0.02)
    assert core.patches.linear.weight.abs().max().item() <= 1 / np.sqrt(6125)


def test_the_scale_of_rotations_is_the_published_one():
    rotary = RotaryPositions(300, 150, 80, device=torch.device("cpu"), dtype=torch.float64)
    ones = torch.ones(1, 1, 300, 80, dtype=torch.float64)
    turned = rotary.turn(ones)[0, 0]
    gains = (turned * turned).sum(1) / 80
    assert gains[[0, 150, 299]].tolist() == pytest.approx([110.6 / 80, 1, 60.5 / 80], rel=1e-3)


def test_which_frames_a_prediction_depends_on():
    for config, expected in ((OF_2023, list(range(N_FRAMES))), (CAUSAL, list(range(4)))):
        model = make_model(config)
        videos, pupil = (tensor.clone().requires_grad_() for tensor in make_inputs(1))
        predicted = 3 - model.n_frames_lost
        model(videos, pupil, ONE)[0, :, predicted].sum().backward()
        assert videos.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist() == expected
        assert pupil.grad[0].abs().sum(dim=0).nonzero().flatten().tolist() == [3]


def test_temporal_registers_have_no_effect_where_attention_is_causal_and_one_where_it_is_not():
    videos, pupil = make_inputs(1)
    for is_causal in (True, False):
        model = make_model(CAUSAL.model_copy(update={"is_causal": is_causal}))
        with torch.no_grad():
            before = model(videos, pupil, ONE)
            model.core.temporal_registers.neg_()
            after = model(videos, pupil, ONE)
        assert torch.allclose(before, after, rtol=1e-10, atol=0) == is_causal


def test_trials_longer_than_the_learned_positions_are_seen_in_windows():
    model = make_model(OF_2023)
    videos, pupil = make_inputs(1, n_frames=21)
    with torch.no_grad():
        found = model(videos, pupil, ONE)
        windows = [model(videos[:, :, end - 9 : end], pupil[..., end - 9 : end], ONE) for end in (9, 16, 21)]
    # 2 frames are lost; each window gives what the one before has left, the last one ends with the trial.
    expected = torch.cat([windows[0], windows[1], windows[2][..., -5:]], dim=2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_longer_trial_moves_the_middle_of_rotary_positions():
    model = make_model(CAUSAL)
    videos, pupil = make_inputs(1, n_frames=12)
    with torch.no_grad():
        long, short = model(videos, pupil, ONE), model(videos[:, :, :9], pupil[..., :9], ONE)
    assert not torch.allclose(long[..., :9], short, rtol=1e-12, atol=0)
    np.testing.assert_allclose(
        long[0].numpy(), predict_in_numpy(model, videos[0].numpy(), pupil[0].numpy(), ONE), rtol=1e-9
    )


def test_a_state_needs_channels_of_it():
    with pytest.raises(UsageError, match="no state of the animal to encode"):
        Vivit(OF_2023, {}, n_input_channels=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 37}, "patches of 37 pixels do not fit a 36 × 64 frame"),
        ({"positions": "rotary", "head_size": 5}, "head_size 5 must be even"),
        ({"max_frames": 24}, "max_frames 24 leave nothing to predict"),
        ({"readout": "factorized"}, "encodes_state needs readout gaussian"),
        ({"drop_path": 1.0}, "less than 1"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        VivitConfig(**settings)
