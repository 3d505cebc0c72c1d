"""Checkpoints of Dynamic-V1FM, written out by their published names, as models and as runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import Recorded, record_session
from models.checkpoints import find_format
from models.conversion import export_checkpoint, import_checkpoint, load_checkpoint
from models.neurons import NeuronInfo
from models.prediction import predict
from models.registry import build_model, get_preset
from models.runs import load_run
from sensorium_data.errors import RunError, UsageError
from sensorium_data.predictions import open_predictions

FORMAT = "dynamic-v1fm"
#: By which names its settings are told: channels, units of the perceptron, heads, blocks, window, patch.
SMALL = {"channels": 8, "units": 5, "heads": 2, "blocks": 2, "window": (4, 3, 3), "patch": (2, 6, 8), "hidden": (3, 4)}
PUBLISHED = {
    "channels": 224,
    "units": 488,
    "heads": 4,
    "blocks": 4,
    "window": (8, 7, 7),
    "patch": (2, 2, 2),
    "hidden": (32, 16),
}
SETTINGS = {"model.n_frames": "12", "n_frames_window": "12", "model.window_size": "4,3,3", "prediction_hop": "6"}


def list_shapes(sizes, neurons, *, fuses=False):
    """Return the shape of each weight by its name in a file, without ``module.``; ``neurons`` counts each session's."""
    c, units, heads, window = (sizes[name] for name in ("channels", "units", "heads", "window"))
    n_distances = int(np.prod([2 * w - 1 for w in window]))
    shapes = {
        "core.patch_embedding.proj.weight": (c, 1, *sizes["patch"]),
        "core.patch_embedding.proj.bias": (c,),
        "core.patch_embedding.norm.weight": (c,),
        "core.patch_embedding.norm.bias": (c,),
    }

    def add_linear(name, n_out, n_in):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    for block in range(sizes["blocks"]):
        at = f"core.transformer.blocks.{block}"
        shapes[f"{at}.mha.relative_position_bias_table"] = (n_distances, heads)
        shapes[f"{at}.mha.relative_position_index"] = (int(np.prod(window)),) * 2
        add_linear(f"{at}.mha.qkv", 3 * c, c)
        add_linear(f"{at}.mha.proj", c, c)
        add_linear(f"{at}.mlp.linear1.0", 2 * units, c)
        shapes[f"{at}.mlp.dwconv.0.conv.weight"] = (units, 1, 3, 3, 3)
        shapes[f"{at}.mlp.dwconv.0.conv.bias"] = (units,)
        add_linear(f"{at}.mlp.linear2.0", c, units)
        add_linear(f"{at}.b-mlp.model.0", c // 2, 4)
        add_linear(f"{at}.b-mlp.model.3", c // sizes["patch"][0], c // 2)
    shapes["core.transformer.drop_path.keep_prop"] = ()
    of_places, of_shifts = sizes["hidden"]
    for session, n in neurons.items():
        at = f"readout.{session}"
        shapes |= {f"{at}.sigma": (1, n, 2, 2), f"{at}.bias": (n,), f"{at}.source_grid": (n, 2)}
        shapes[f"{at}._features"] = (1, c, 1, n)
        add_linear(f"{at}.mu_transform.0", of_places, 2)
        add_linear(f"{at}.mu_transform.2", 2, of_places)
        for level, hidden in ((2, 32), (4, 64), (8, 128), (16, 256)):
            shapes[f"{at}._features{level}"] = (1, c, 1, n // level)
            shapes[f"{at}.up_refine{level}.0.weight"] = (hidden, 1, 1)
            shapes[f"{at}.up_refine{level}.0.bias"] = (hidden,)
            shapes[f"{at}.up_refine{level}.2.weight"] = (1, hidden, 1)
        for k in range(2, 6) if fuses else ():
            add_linear(f"{at}.fusion_block{k}.module.0", k, k)
            add_linear(f"{at}.fusion_block{k}.module.2", k, k)
        add_linear(f"shifter.{session}.mlp.0", of_shifts, 2)
        add_linear(f"shifter.{session}.mlp.2", of_shifts, of_shifts)
        add_linear(f"shifter.{session}.mlp.4", 2, of_shifts)
    return shapes


def index_pairs(window):
    """The row of the table of biases for each two tokens of a window."""
    places, lengths = list(np.ndindex(*window)), [2 * w - 1 for w in window]
    first = np.array(window) - 1
    return [[int(np.ravel_multi_index(np.array(one) - other + first, lengths)) for other in places] for one in places]


def make_state(sizes, positions, *, fuses=False, prefix="module."):
    """Return weights drawn at random; ``positions`` are (neuron, 2), by what a session is called."""
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in list_shapes(sizes, {key: len(at) for key, at in positions.items()}, fuses=fuses).items():
        if name.endswith("relative_position_index"):
            state[prefix + name] = torch.tensor(index_pairs(sizes["window"]))
        elif name.endswith("keep_prop"):
            state[prefix + name] = torch.tensor(1.0)
        else:
            value = generator.normal(0, 0.3, shape)
            if name.endswith("source_grid"):
                centered = positions[name.split(".")[1]]
                centered = centered - centered.mean(axis=0)
                value = centered / np.abs(centered).max()
            state[prefix + name] = torch.tensor(value, dtype=torch.float32)
    return state


def save(path, state):
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def recorded(store: Path) -> dict[str, Recorded]:
    tiers = {"train": 2, "oracle": 1}
    return {alias: record_session(store, alias, n_neurons=18, n_by_tier=tiers) for alias in "FG"}


@pytest.fixture(scope="module")
def positions(recorded) -> dict[str, np.ndarray]:
    return {one.name: one.positions[:, :2] for one in recorded.values()}


@pytest.mark.parametrize("fuses", [False, True])
def test_the_preset_has_the_published_names_and_shapes(fuses: bool) -> None:
    fusion = "adaptive" if fuses else "mean"
    preset = get_preset("dynamic-v1fm")
    preset = preset.model_copy(update={"model": preset.model.model_copy(update={"fusion": fusion})})
    with torch.device("meta"):
        weights = build_model(
            preset, {"one": NeuronInfo(33, np.random.default_rng(0).normal(size=(33, 2)))}
        ).state_dict()
    layout = find_format(FORMAT).layout_of(preset.model)
    wanted = list(layout.list_weights(layout.structure_of(preset.model, {"one": "one"})))
    found = {weight.file_name: weight.file_shape(weights[weight.name].shape) for weight in wanted}
    found |= {name: tuple(constant.shape) for name, constant in layout.make_constants(preset.model).items()}
    assert found == list_shapes(PUBLISHED, {"one": 33}, fuses=fuses)
    assert {weight.name for weight in wanted} == set(weights)


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_an_imported_checkpoint_predicts_and_is_exported_bit_by_bit(
    fuses: bool, prefix: str, store, recorded, positions, tmp_path: Path
) -> None:
    state = make_state(SMALL, positions, fuses=fuses, prefix=prefix)
    path = save(tmp_path / "model_2_16.pth", state)
    settings = SETTINGS | {"model.levels": "2,16"}
    report = import_checkpoint(FORMAT, [path], str(store), tmp_path / "run", settings=settings)
    assert (report.status, report.sessions, report.preset) == ("imported", tuple(positions), "dynamic-v1fm")
    assert "levels=2,16, n_frames=12, window_size=4,3,3" in report.notes[0]
    run = load_run(report.run)
    assert (run.config.model.fusion, run.config.model.levels) == ("adaptive" if fuses else "mean", (2, 16))
    predict([report.run], str(store), ["oracle"], str(tmp_path / "predictions"))
    # Windows of 12 frames lose 6, and together predict all frames of a trial but its first 6.
    predicted = open_predictions(str(tmp_path / "predictions"), recorded["F"].name).predictions[0].values
    assert np.isnan(predicted[:, :6]).all()
    assert np.isfinite(predicted[:, 6 : recorded["F"].n_frames[-1]]).all()
    back = tmp_path / "back.pth"
    assert export_checkpoint(report.run, FORMAT, back).n_weights == len(state)
    found = torch.load(back, weights_only=True)
    # Without what DataParallel puts before the names.
    assert found.keys() == {name.removeprefix("module.") for name in state}
    for name, value in state.items():
        other = found[name.removeprefix("module.")]
        assert other.dtype == value.dtype, name
        assert torch.equal(other, value), name


def test_the_weights_lie_where_their_names_say(positions, tmp_path: Path) -> None:
    state = make_state(SMALL, positions, fuses=True, prefix="")
    name, other = positions
    path = save(tmp_path / "model.pth", state)
    model = load_checkpoint(path, format=FORMAT, settings=SETTINGS | {"model.levels": "8"})
    assert list(model.readouts) == [name, other]
    at = "core.transformer.blocks.1"
    block, readout = model.core.blocks[1], model.readouts[other]
    for found, expected in (
        (model.core.patches.projection.weight, "core.patch_embedding.proj.weight"),
        (block.attention.inputs.weight, f"{at}.mha.qkv.weight"),
        (block.attention.outputs.bias, f"{at}.mha.proj.bias"),
        (block.attention.biases, f"{at}.mha.relative_position_bias_table"),
        (block.perceptron.inputs.weight, f"{at}.mlp.linear1.0.weight"),
        (block.perceptron.neighbors.weight, f"{at}.mlp.dwconv.0.conv.weight"),
        (block.perceptron.outputs.bias, f"{at}.mlp.linear2.0.bias"),
        (block.state.layers[0].weight, f"{at}.b-mlp.model.0.weight"),
        (block.state.layers[2].weight, f"{at}.b-mlp.model.3.weight"),
        (readout.sigma, f"readout.{other}.sigma"),
        (readout.coarse_features["16"], f"readout.{other}._features16"),
        (readout.refinements["8"][2].weight, f"readout.{other}.up_refine8.2.weight"),
        (readout.fusions["4"].layers[2].bias, f"readout.{other}.fusion_block4.module.2.bias"),
        (model.shifters[other].mlp[4].weight, f"shifter.{other}.mlp.4.weight"),
    ):
        assert torch.equal(found.squeeze(), state[expected].squeeze()), expected


BAD_WEIGHTS = {
    "missing": (
        "core.transformer.blocks.1.mha.proj.bias",
        None,
        r"1 missing \(core\.transformer\.blocks\.1\.mha\.proj",
    ),
    "extra": ("core.transformer.norm.weight", torch.zeros(8), r"1 extra \(core\.transformer\.norm\.weight\)"),
    "another window": (
        "core.transformer.blocks.0.mha.relative_position_index",
        torch.zeros(36, 36, dtype=torch.int64),
        "relative_position_index is not that of",
    ),
    "some branches left out": (
        "core.transformer.drop_path.keep_prop",
        torch.tensor(0.9),
        r"keep_prop is not that of .*found other values",
    ),
    "two channels of video": ("core.patch_embedding.proj.weight", torch.zeros(8, 2, 2, 6, 8), "2 channels, expected 1"),
    "NaN": ("core.patch_embedding.proj.bias", torch.full((8,), float("nan")), "1 with NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_of_another_model_are_refused_by_name(case: str, positions, tmp_path: Path) -> None:
    name, value, message = BAD_WEIGHTS[case]
    state = make_state(SMALL, positions, prefix="")
    if value is None:
        del state[name]
    else:
        state[name] = value
    path = save(tmp_path / "model.pth", state)
    with pytest.raises(RunError, match=message) as refused:
        load_checkpoint(path, format=FORMAT, settings=SETTINGS)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_asked_for_beside_has_to_fit(positions, tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", make_state(SMALL, positions))
    for settings, error, message in (
        ({"model.fusion": "adaptive"}, UsageError, "setting model.fusion: found adaptive, expected mean"),
        # The published window has another number of distances.
        ({}, RunError, r"relative_position_index is not that of"),
        (SETTINGS | {"model.window_size": "3,4,3"}, RunError, "not that of|misshapen"),
    ):
        with pytest.raises(error, match=message):
            load_checkpoint(path, format=FORMAT, settings=settings)
    with pytest.raises(RunError, match="not the weights of a model of the SENSORIUM 2023 starter kit"):
        load_checkpoint(path)
