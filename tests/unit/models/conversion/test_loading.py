"""Checkpoints of the starter kit, written out by their published names, against NumPy."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fixtures.starter_kit_files import PUBLISHED, SMALL, list_shapes, make_state, predict_in_numpy, save_state
from models.checkpoints import find_format
from models.conversion import load_checkpoint
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset
from sensorium_data.errors import RunError, SensoriumError, UnknownNameError, UsageError

ONE, OTHER = "dynamic1-2-3-Video-aa", "dynamic4-5-6-Video-bb"
POSITIONS = {session: np.random.default_rng(n).uniform(-700, 200, (n, 2)) for session, n in ((ONE, 3), (OTHER, 2))}
#: Beside the file.
SETTINGS = {"factorized3d-padded": {"model.pads_frames": "true"}, "static2d": {"model.n_frames_ignored": "0"}}
N_FRAMES = 6


def make_inputs():
    generator = np.random.default_rng(1)
    return generator.normal(size=(3, N_FRAMES, 36, 64)), generator.normal(size=(2, N_FRAMES))


@pytest.mark.parametrize("kind", SMALL)
def test_a_checkpoint_predicts_what_numpy_makes_of_its_weights(kind: str, tmp_path: Path) -> None:
    sizes = SMALL[kind]
    state = make_state(sizes, POSITIONS)
    model = load_checkpoint(save_state(tmp_path / "final.pth", state), settings=SETTINGS.get(kind))
    assert not model.training
    assert list(model.readouts) == [ONE, OTHER]
    video, pupil = make_inputs()
    with torch.no_grad():
        found = model.double()(torch.tensor(video)[None], torch.tensor(pupil)[None], OTHER)[0].numpy()
    expected = predict_in_numpy(sizes, state, video, pupil, OTHER)
    assert found.std() > 0.01
    # Bases of Hermite functions are kept in 32 bits.
    np.testing.assert_allclose(found, expected, atol=1e-5 if sizes.n_rotations else 1e-10)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_presets_have_the_published_names_and_shapes(preset: str) -> None:
    config = get_preset(preset)
    with torch.device("meta"):
        weights = build_model(config, {ONE: NeuronInfo(3, POSITIONS[ONE])}).state_dict()
    layout = find_format("starter-kit").layout_of(config.model)
    wanted = list(layout.list_weights(layout.structure_of(config.model, {ONE: ONE})))
    found = {weight.file_name: weight.file_shape(weights[weight.name].shape) for weight in wanted}
    found |= {name: tuple(constant.shape) for name, constant in layout.make_constants(config.model).items()}
    assert found == list_shapes(PUBLISHED[preset], {ONE: 3})
    assert {weight.name for weight in wanted} == set(weights)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_sizes_that_are_a_presets_are_known_as_that_preset(preset: str, tmp_path: Path) -> None:
    sizes = PUBLISHED[preset]
    shapes = list_shapes(sizes, {ONE: 3})
    # No memory is taken by numbers that are all the same.
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items() if not is_constant(name)}
    state |= {name: torch.zeros((), dtype=torch.int64) for name in state if name.endswith("num_batches_tracked")}
    model = load_checkpoint(save_state(tmp_path / "final.pth", state))
    assert model.config == get_preset(preset).model


def is_constant(name: str) -> bool:
    return name.endswith("laplace.filter") or "rotate_hermite" in name


WRAPPINGS = {
    "state_dict": lambda state: {"epoch": 15, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "compiled core": lambda state: {name.replace("core.", "core._orig_mod."): value for name, value in state.items()},
    "all of it": lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    "without filters": lambda state: {name: value for name, value in state.items() if "laplace" not in name},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_state_dict_may_be_wrapped(wrapping: str, tmp_path: Path) -> None:
    state = make_state(SMALL["factorized3d"], POSITIONS)
    plain = load_checkpoint(save_state(tmp_path / "plain.pth", state)).state_dict()
    found = load_checkpoint(save_state(tmp_path / "final.pth", WRAPPINGS[wrapping](state))).state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_masks_tell_whether_frames_are_padded(tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d-masks"], POSITIONS))
    with pytest.raises(RunError, match=r"2 misshapen .*spatial \(3, 30, 58\) instead of \(3, 36, 64\)"):
        load_checkpoint(path, settings={"pads_frames": "true"})


def test_a_video_alone_is_one_channel(tmp_path: Path) -> None:
    state = make_state(SMALL["gru"], POSITIONS, n_inputs=1)
    model = load_checkpoint(save_state(tmp_path / "final.pth", state))
    video, pupil = make_inputs()
    with torch.no_grad():
        found = model.double()(torch.tensor(video[:1])[None], torch.tensor(pupil)[None], ONE)[0].numpy()
    np.testing.assert_allclose(found, predict_in_numpy(SMALL["gru"], state, video[:1], pupil, ONE), atol=1e-10)


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_runs_from_a_checkpoint(tmp_path: Path) -> None:
    mark = tmp_path / "code ran"
    path = save_state(tmp_path / "final.pth", {"core": Harmful(mark)})
    with pytest.raises(RunError, match=r"holds code, which is not run: found getattr, expected tensors") as refused:
        load_checkpoint(path)
    assert not mark.exists()
    assert "\n" not in str(refused.value)


def change(path: Path, name: str, value: object) -> None:
    state = torch.load(path)
    if value is None:
        del state[name]
    else:
        state[name] = value
    torch.save(state, path)


FIRST = "core.features.layer0.conv_spatial"
BAD_WEIGHTS = {
    "missing": (f"readout.{ONE}.bias", None, rf"1 missing \(readout\.{ONE}\.bias\)"),
    "extra": ("modulator.x", torch.zeros(1), r"1 extra \(modulator\.x\)"),
    "another number of neurons": (f"readout.{ONE}.bias", torch.zeros(5), r"bias \(5,\) instead of \(3,\)"),
    "another number of axes": (f"{FIRST}.weight", torch.zeros(2, 3, 5, 5), "conv_spatial.weight has the wrong shape"),
    "no length 1": (f"readout.{ONE}._features", torch.zeros(1, 3, 2, 3), r"_features \(1, 3, 2, 3\) instead of \(1, 3"),
    "another dtype": (f"{FIRST}.bias", torch.zeros(2).half(), "conv_spatial.bias float16 instead of float32"),
    "NaN": (f"{FIRST}.bias", torch.full((2,), float("nan")), "1 with NaN or infinity"),
    "another filter": ("core.temporal_regularizer.laplace.filter", torch.ones(1, 1, 3), "is not that of the fact"),
    "a layer left out": ("core.features.layer7.norm.bias", torch.zeros(3), "missing"),
    "no neurons": (f"readout.{ONE}.source_grid", torch.zeros(0, 2), "no neurons of a session"),
    "places in 3D": (f"readout.{ONE}.source_grid", torch.zeros(3, 3), r"expected \(neurons, 2\)"),
    "five channels": (f"{FIRST}.weight", torch.zeros(2, 5, 1, 5, 5), "found 5 channels"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_of_another_model_are_refused_by_name(case: str, tmp_path: Path) -> None:
    name, value, message = BAD_WEIGHTS[case]
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], POSITIONS))
    change(path, name, value)
    with pytest.raises(RunError, match=message) as refused:
        load_checkpoint(path)
    assert str(path) in str(refused.value)


def test_a_misspelled_weight_is_named_beside_the_one_that_is_missing(tmp_path: Path) -> None:
    state = make_state(SMALL["full3d"], POSITIONS)
    state["core.features.layer1.conv1.weight"] = state.pop("core.features.layer1.conv_1.weight")
    path = save_state(tmp_path / "final.pth", state)
    with pytest.raises(RunError, match=r"1 missing \(core\.features\.layer1\.conv_1\.weight, near .*conv1\.weight\)"):
        load_checkpoint(path)


def test_other_hermite_functions_are_refused(tmp_path: Path) -> None:
    state = make_state(SMALL["gru-equivariant"], POSITIONS)
    state["core.features.layer1.hermite_conv.rotate_hermite.H"][0] *= -1
    with pytest.raises(RunError, match=r"the constant \S+layer1\S+H is not that of .*equivariant"):
        load_checkpoint(save_state(tmp_path / "final.pth", state))


def zip_of(name: str, content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(name, content)
    return written.getvalue()


BAD_FILES = {
    "empty": (b"", "an empty file"),
    "text": (b"no checkpoint", "a text"),
    "web page": (b"\n<!DOCTYPE html>\n<html>Sign in</html>", "a web page"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "a pointer of Git LFS, and not the file it stands for",
    ),
    "pickle": (pickle.dumps([1, 2], protocol=2), "a pickle of 12 bytes that breaks off, is damaged"),
    "zip": (b"PK\x03\x04" + bytes(40), "the beginning of a zip, 44 bytes, without its end"),
    "other zip": (zip_of("data.csv", b"1,2"), r"a zip of \d+ bytes that is damaged, or was not written by torch"),
    "zip with another pickle": (zip_of("archive/data.pkl", b"\x93\xe2"), r"a zip of \d+ bytes that is damaged"),
    "safetensors": (save({"weight": torch.zeros(3)}), "a file of safetensors"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "a file of HDF5"),
    "noise": (bytes(range(250, 100, -1)), "150 bytes of another kind"),
}


@pytest.mark.parametrize(("content", "found"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_no_checkpoint_are_told_by_what_they_are(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "final.pth"
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"not a file of weights, or a damaged one: found {found}") as refused:
        load_checkpoint(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(("is_zip", "kind"), [(True, "the beginning of a zip"), (False, "a pickle of")])
def test_a_truncated_checkpoint_is_told_as_one(is_zip: bool, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "final.pth"
    torch.save(make_state(SMALL["factorized3d"], POSITIONS), path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    for size in (10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(RunError, match=rf"a damaged one: found {kind}.* {size:,} bytes"):
            load_checkpoint(path)


def test_a_checkpoint_with_a_changed_byte_is_refused_in_our_words(tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], POSITIONS))
    content = bytearray(path.read_bytes())
    for place in range(0, 4_000, 97):
        changed = content.copy()
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            load_checkpoint(path)
        except RunError as error:
            # Padding between a zip's members may be changed.
            assert not re.search("codec|enforce|Error|Pytorch|opcode", str(error)), str(error)  # noqa: PT017


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(1)}
    for content, message in (
        ({"state_dict": state, "model": state}, "several: found a dictionary with state_dict, model"),
        ({"epoch": 3}, "no state_dict"),
        ([state], "found a list"),
        ({}, "an empty dictionary"),
        (state, "not the weights of a model of the SENSORIUM 2023 starter kit: found weight"),
        (state | {"_orig_mod.weight": torch.zeros(1)}, "a weight twice"),
    ):
        with pytest.raises(RunError, match=message):
            load_checkpoint(save_state(tmp_path / "final.pth", content))
    with pytest.raises(RunError, match="No such file"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(RunError, match="a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "weight", "found"),
    [
        ("weight", torch.zeros(3, device="meta"), "weight: a tensor that is sparse"),
        ("weight", torch.eye(3).to_sparse(), "weight: a tensor that is sparse"),
        ("readout.\ud800.bias", torch.zeros(3), "a name that is too long"),
        ("readout.a\x1b[31m.bias", torch.zeros(3), "a name that is too long"),
        (f"core.features.layer{'9' * 5000}.norm.bias", torch.zeros(3), r"\(5029 characters\): a name that is too long"),
        (f"core.features.layer{'9' * 400}.norm.bias", torch.zeros(3), "not the weights of"),
    ],
)
def test_tensors_and_names_that_are_no_plain_ones_are_refused(
    name: str, weight: torch.Tensor, found: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=found):
        load_checkpoint(save_state(tmp_path / "final.pth", {name: weight}))


def test_few_numbers_that_stand_for_many_are_refused(tmp_path: Path) -> None:
    """A tensor's shape may repeat its numbers: a small file would fill the memory."""
    path = save_state(tmp_path / "final.pth", {"weight": torch.zeros(1).expand(10**10)})
    with pytest.raises(RunError, match=r"too large: found 40\.0 GB"):
        load_checkpoint(path)


def test_files_are_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], POSITIONS))
    size_bytes = path.stat().st_size
    monkeypatch.setattr("models.checkpoints.file.MAX_CHECKPOINT_SIZE_BYTES", size_bytes)
    assert load_checkpoint(path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for member in whole.infolist():
            other.writestr(member.filename, whole.read(member) + bytes(size_bytes))
    assert packed.stat().st_size < size_bytes
    with pytest.raises(RunError, match="too large"):
        load_checkpoint(packed)
    monkeypatch.setattr("models.checkpoints.file.MAX_CHECKPOINT_SIZE_BYTES", size_bytes - 1)
    with pytest.raises(RunError, match="too large"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"format": "starterkit"}, UnknownNameError, "did you mean starter-kit"),
        ({"preset": "gru"}, UsageError, "found gru, of the model gru"),
        ({"preset": "factorised3d"}, UnknownNameError, "factorized3d"),
        ({"settings": {"channels": "2,4"}}, UsageError, "as the weights tell"),
        ({"settings": {"padding": "1"}}, UnknownNameError, "padding"),
        ({"settings": {"neurons": "5"}}, UsageError, "setting neurons: .*no checkpoint tells that"),
        ({"settings": {"n_trials": "5"}}, UsageError, "setting n_trials: .*no checkpoint tells that"),
    ],
)
def test_what_is_asked_for_beside_has_to_fit(arguments, kind: type[SensoriumError], message: str, tmp_path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], POSITIONS))
    with pytest.raises(kind, match=message):
        load_checkpoint(path, **arguments)
