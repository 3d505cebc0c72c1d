"""Checkpoints of DwiseNeuro as argus saves them, written out by their published names."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.argus_files import BASIC, DISTILLED, SMALL, list_shapes, make_state, predict_in_numpy, save_file
from fixtures.recorded_stores import record_session
from models.checkpoints import find_format
from models.conversion import export_checkpoint, import_checkpoint, load_checkpoint
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset
from models.runs import load_run
from sensorium_data.errors import RunError, UsageError
from sensorium_data.predictions import verify_run
from sensorium_data.sessions import find_session

#: In the order of the readouts.
ALIASES = "FGHIJABCDE"
PUBLISHED = {find_session(alias).name: find_session(alias).n_neurons for alias in ALIASES}
F, G = (find_session(alias).name for alias in "FG")
#: Of the small file: an odd number and an even one.
N_NEURONS = (5, 4)
SETTINGS = {"strides": "2,1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small file of two sessions."""
    return save_file(tmp_path / "model-017-0.293200.pth", make_state(SMALL, N_NEURONS), N_NEURONS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("store")
    for alias, n in zip("FG", N_NEURONS, strict=True):
        record_session(root, alias, n_neurons=n, n_by_tier={"train": 2, "oracle": 1})
    return str(root)


@pytest.mark.parametrize(
    ("preset", "sizes", "n_bytes"),
    [("dwiseneuro", BASIC, 682_955_720), ("dwiseneuro-distilled", DISTILLED, 680_537_400)],
)
def test_the_presets_have_the_published_names_shapes_and_bytes(preset: str, sizes, n_bytes: int) -> None:
    config = get_preset(preset)
    with torch.device("meta"):
        weights = build_model(
            config, {name: NeuronInfo(n, np.zeros((n, 2))) for name, n in PUBLISHED.items()}
        ).state_dict()
    layout = find_format("argus").layout_of(config.model)
    # In whatever order a run has its sessions.
    sessions = {name: name for name in reversed(PUBLISHED)}
    wanted = list(layout.list_weights(layout.structure_of(config.model, sessions)))
    found = {weight.file_name: weight.file_shape(weights[weight.name].shape) for weight in wanted}
    found |= {name: tuple(constant.shape) for name, constant in layout.make_constants(config.model).items()}
    assert found == list_shapes(sizes, tuple(PUBLISHED.values()))
    assert len(found) == 365
    assert {weight.name for weight in wanted} == set(weights)
    assert sum(math.prod(shape) * (8 if name.endswith("tracked") else 4) for name, shape in found.items()) == n_bytes


@pytest.mark.parametrize(("preset", "sizes"), [("dwiseneuro", BASIC), ("dwiseneuro-distilled", DISTILLED)])
def test_sizes_that_are_a_presets_are_known_as_that_preset(preset: str, sizes, tmp_path: Path) -> None:
    # No memory is taken by numbers that are all the same.
    state = {
        name: torch.zeros((), dtype=torch.int64 if name.endswith("tracked") else torch.float32).expand(shape)
        for name, shape in list_shapes(sizes, (3,)).items()
        if not name.endswith("inv_freq")
    }
    model = load_checkpoint(save_file(tmp_path / "model.pth", state, (3,)), format="argus")
    assert model.config == get_preset(preset).model
    assert list(model.readouts) == [F]


def test_a_checkpoint_predicts_what_numpy_makes_of_its_weights(path: Path) -> None:
    model = load_checkpoint(path, format="argus", settings=SETTINGS)
    assert not model.training
    assert list(model.readouts) == [F, G]
    video = np.random.default_rng(0).normal(size=(5, 6, 7, 9))
    for number, (session, n) in enumerate(zip((F, G), N_NEURONS, strict=True)):
        with torch.no_grad():
            found = model.double()(torch.tensor(video)[None], torch.zeros(1, 2, 6), session)[0].numpy()
        expected = predict_in_numpy(SMALL, make_state(SMALL, N_NEURONS), video, number, n)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("has_constants", [True, False])
def test_an_imported_checkpoint_is_exported_bit_by_bit(store: str, tmp_path: Path, has_constants: bool) -> None:
    state = make_state(SMALL, N_NEURONS)
    frequencies = [name for name in state if name.endswith("inv_freq")]
    for name in frequencies:
        # Another processor may round otherwise.
        state[name] = torch.nextafter(state[name], torch.ones_like(state[name]))
        if not has_constants:
            del state[name]
    path = save_file(tmp_path / "model.pth", state, N_NEURONS)
    report = import_checkpoint("argus", [path], store, tmp_path / "run", settings=SETTINGS)
    assert (report.status, report.sessions) == ("imported", (F, G))
    assert verify_run(report.run).problems == ()
    assert load_run(report.run).config.model.squeeze_reduction == SMALL.reduction
    back = tmp_path / "back.pth"
    exported = export_checkpoint(report.run, "argus", back)
    assert exported.settings == {"model.strides": "2,1", "model.softplus_beta": "0.07"}
    content = torch.load(back, weights_only=True)
    assert content["params"]["nn_module"][1]["readout_outputs"] == N_NEURONS
    found = content["nn_state_dict"]
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name
    assert export_checkpoint(report.run, "argus", back).status == "already done"
    # What was exported is imported again.
    again = import_checkpoint("argus", [back], store, tmp_path / "again", settings=SETTINGS)
    assert again.n_parameters == report.n_parameters


@pytest.mark.parametrize(("reduction", "squeezed"), [(6, (3, 7)), (15, (1, 3)), (32, (1, 1))])
def test_the_reduction_of_every_block_is_known_also_where_it_is_rounded(
    reduction: int, squeezed: tuple[int, ...], tmp_path: Path
) -> None:
    sizes = dataclasses.replace(SMALL, features=(7, 15, 12), reduction=reduction)
    path = save_file(tmp_path / "model.pth", make_state(sizes, N_NEURONS), N_NEURONS)
    model = load_checkpoint(path, format="argus", settings=SETTINGS)
    assert tuple(block.squeeze.out_channels for block in model.core.blocks) == squeezed


def test_sessions_are_taken_out_of_a_file_and_go_back_if_none_is_left_out(
    store: str, path: Path, tmp_path: Path
) -> None:
    first = import_checkpoint("argus", [path], store, tmp_path / "first", sessions=["F"], settings=SETTINGS).run
    export_checkpoint(first, "argus", tmp_path / "back.pth")
    content = torch.load(tmp_path / "back.pth", weights_only=True)
    assert content["params"]["nn_module"][1]["readout_outputs"] == N_NEURONS[:1]
    assert not any(name.startswith("readouts.1") for name in content["nn_state_dict"])
    second = import_checkpoint("argus", [path], store, tmp_path / "second", sessions=["G"], settings=SETTINGS).run
    assert load_run(second).sessions[0].name == G
    with pytest.raises(UsageError, match=r"cannot leave one out: found 1 session \(G\), without F; export"):
        export_checkpoint(second, "argus", tmp_path / "none.pth")


def test_sessions_of_other_labs_are_refused_in_a_line() -> None:
    names = [f"dynamic3000{number}-2-5-Video-mylab" for number in range(5)]
    model = get_preset("dwiseneuro").model
    with pytest.raises(UsageError, match=r"only the sessions of the competition: found 5 other sessions: .* 2 more"):
        find_format("argus").layout_of(model).structure_of(model, {name: name for name in [F, *names]})


def test_other_models_have_no_such_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the format argus has no files of this model"):
        find_format("argus").layout_of(get_preset("gru").model)


BLOCK = "core.blocks.1"
BAD_WEIGHTS = {
    "missing": (f"{BLOCK}.se.conv_reduce.bias", None, r"1 missing \(core\.blocks\.1\.se\.conv_reduce\.bias\)"),
    "a readout left out": ("readouts.0.layer.1.bias", None, r"1 missing \(readouts\.0\.layer\.1\.bias\)"),
    "extra": ("core.blocks.1.gate.weight", torch.zeros(1), r"1 extra \(core\.blocks\.1\.gate\.weight\)"),
    "another dtype": (f"{BLOCK}.conv_pw.0.weight", torch.zeros(24, 8, 1, 1, 1).half(), "float16 instead of float32"),
    "NaN": ("readouts.1.layer.1.bias", torch.full((4,), float("nan")), "1 with NaN or infinity"),
    "other positions": ("core.blocks.0.inv_freq", torch.ones(2), "the constant core.blocks.0.inv_freq is not that of"),
    "another stride of shapes": (
        f"{BLOCK}.conv_pw.0.weight",
        torch.zeros(24, 8),
        "conv_pw.0.weight has the wrong shape",
    ),
    "three channels": ("core.stem.0.weight", torch.zeros(8, 3, 1, 1, 1), "found 3 channels"),
    "eleven sessions": ("readouts.10.layer.1.bias", torch.zeros(4), "more readouts than there are sessions: found 11"),
    "a readout far off": ("readouts.99999999.layer.1.bias", torch.zeros(4), "more readouts than there are sessions"),
    "a block far off": ("core.blocks.99999999.bn_sc.bn.bias", torch.zeros(4), "missing"),
    "nothing inside": (f"{BLOCK}.conv_pw.0.weight", torch.zeros(24, 0, 1, 1, 1), "not those of"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_of_another_model_are_refused_by_name(case: str, tmp_path: Path) -> None:
    name, value, message = BAD_WEIGHTS[case]
    state = make_state(SMALL, N_NEURONS)
    if value is None:
        del state[name]
    else:
        state[name] = value
    path = save_file(tmp_path / "model.pth", state, N_NEURONS)
    with pytest.raises(RunError, match=message) as refused:
        load_checkpoint(path, format="argus", settings=SETTINGS)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


BAD_PARAMETERS = {
    "none": {"nn_module": None},
    "a name alone": {"nn_module": ("dwiseneuro",)},
    "a text": {"nn_module": ("dwiseneuro", {"readout_outputs": "54"})},
    "truth values": {"nn_module": ("dwiseneuro", {"readout_outputs": (True, 4)})},
    "no neurons": {"nn_module": ("dwiseneuro", {"readout_outputs": (0, 4)})},
    "too many": {"nn_module": ("dwiseneuro", {"readout_outputs": (5,) * 11})},
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_parameters_without_numbers_of_neurons_are_refused(case: str, tmp_path: Path) -> None:
    path = save_file(tmp_path / "model.pth", make_state(SMALL, N_NEURONS), N_NEURONS, **BAD_PARAMETERS[case])
    with pytest.raises(RunError, match="the file does not tell the numbers of neurons"):
        load_checkpoint(path, format="argus", settings=SETTINGS)


@pytest.mark.parametrize(
    ("n_neurons", "message"), [((5,), "do not fit"), ((5, 40), "do not fit"), ((5, 2), "misshapen")]
)
def test_numbers_of_neurons_that_are_not_those_of_the_weights_are_refused(n_neurons, message, tmp_path: Path) -> None:
    path = save_file(tmp_path / "model.pth", make_state(SMALL, N_NEURONS), n_neurons)
    with pytest.raises(RunError, match=message):
        load_checkpoint(path, format="argus", settings=SETTINGS)


def test_a_state_dict_alone_or_strides_of_another_model_are_refused(path: Path, tmp_path: Path) -> None:
    torch.save(make_state(SMALL, N_NEURONS), tmp_path / "bare.pth")
    with pytest.raises(RunError, match=r"the file does not tell the numbers of neurons: .*give the whole file"):
        load_checkpoint(tmp_path / "bare.pth", format="argus", settings=SETTINGS)
    with pytest.raises(RunError, match=r"not those of DwiseNeuro.*must be one for each block"):
        load_checkpoint(path, format="argus")
