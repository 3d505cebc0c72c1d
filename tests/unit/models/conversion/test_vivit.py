"""Checkpoints of both versions of ViV1T, and the arguments beside them: read, refused, and given back."""

from __future__ import annotations

import io
import pickle
import time

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import record_session
from fixtures.vivit_files import (
    PUBLISHED_2023,
    PUBLISHED_CLOSED_LOOP,
    SMALL_2023,
    SMALL_CLOSED_LOOP,
    list_shapes,
    make_arguments,
    make_state,
    write_arguments,
)
from models.checkpoints import find_format, read_arguments
from models.conversion import export_checkpoint, import_checkpoint, load_checkpoint
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset
from models.runs import load_run
from sensorium_data.errors import RunError, UsageError
from sensorium_data.predictions import verify_run

POSITIONS = {mouse: np.random.default_rng(n).uniform(-700, 200, (n, 2)) for mouse, n in (("A", 3), ("F", 2))}
SIZES = {"vivit": SMALL_2023, "vivit-closed-loop": SMALL_CLOSED_LOOP}
PUBLISHED = {"vivit": PUBLISHED_2023, "vivit-closed-loop": PUBLISHED_CLOSED_LOOP}
PRESETS = {"vivit": "vivit", "vivit-closed-loop": "vivit-causal"}


def wrap(format, state):
    """What the file holds: in 2023, the state of training beside the weights."""
    if format == "vivit-closed-loop":
        return state
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    scheduler = {"best_value": np.float64(0.25), "lr_wait": 2, "mode": "max", "module_names": None}
    return {"epoch": 7, "value": 0.25, "model": state, "optimizer": optimizer, "scheduler": scheduler}


def save(folder, format, state, arguments=None):
    """A run's folder, of which the checkpoint is returned."""
    (folder / "ckpt").mkdir(parents=True, exist_ok=True)
    if arguments is not None:
        write_arguments(folder / "args.yaml", arguments)
    path = folder / "ckpt" / ("model_state.pt" if format == "vivit" else "model.pt")
    torch.save(wrap(format, state), path)
    return path


def save_small(folder, format, positions=POSITIONS, **changes):
    sizes = SIZES[format]
    return save(folder, format, make_state(sizes, positions), make_arguments(sizes) | changes)


@pytest.mark.parametrize("format", SIZES)
def test_settings_are_those_of_the_weights_and_of_the_arguments_beside_them(format, tmp_path):
    sizes = SIZES[format]
    model = load_checkpoint(save_small(tmp_path, format), format=format)
    config = model.config
    assert (config.patch_frames, config.patch_size, config.patch_stride) == (3, sizes.patch_size, 8)
    assert (config.n_heads, config.head_size, config.hidden_units, config.max_frames) == (2, 4, 5, 40)
    assert (config.attention_dropout, config.hidden_dropout, config.drop_path) == (0.3, 0.05, 0.0505)
    assert (config.n_registers, config.encodes_state) == (sizes.n_registers, sizes.encodes_state)
    own = ("elu1", "relu", True, "rotary", True) if sizes.is_closed_loop else ("exp", "gelu", False, "learned", False)
    assert (config.output, config.activation, config.is_causal, config.positions, config.pads_time) == own
    videos = torch.randn(1, 5, 6, *((41, 69) if sizes.is_closed_loop else (36, 64)))
    with torch.no_grad():
        assert model(videos, torch.randn(1, 2, 6), "F").shape == (1, 2, 6 if sizes.is_closed_loop else 4)


@pytest.mark.parametrize("format", SIZES)
def test_the_presets_have_the_published_names_and_shapes(format):
    config = get_preset(PRESETS[format])
    with torch.device("meta"):
        weights = build_model(config, {"A": NeuronInfo(3, POSITIONS["A"])}).state_dict()
    layout = find_format(format).layout_of(config.model)
    wanted = list(layout.list_weights(layout.structure_of(config.model, {"A": "A"})))
    found = {weight.file_name: weight.file_shape(weights[weight.name].shape) for weight in wanted}
    constants = layout.make_constants(config.model) | layout.make_session_constants(config.model, "A")
    found |= {name: tuple(constant.shape) for name, constant in constants.items()}
    assert found == list_shapes(PUBLISHED[format], {"A": 3})
    assert {weight.name for weight in wanted} == set(weights)


@pytest.mark.parametrize("format", SIZES)
def test_the_published_sizes_are_known_as_the_preset_with_and_without_arguments(format, tmp_path):
    sizes, preset = PUBLISHED[format], get_preset(PRESETS[format]).model
    state = {name: torch.zeros(()).expand(shape) for name, shape in list_shapes(sizes, {"A": 3}).items()}
    state |= {
        name: value
        for name, value in make_state(sizes, {}).items()
        if find_format(format).layouts()[0].is_constant(name)
    }
    state["readouts.A.reg_scale"] = state["shifters.A.reg_scale"] = torch.zeros(())
    if sizes.is_closed_loop:
        state["output_activation.A.one"] = torch.ones(())
    path = save(tmp_path, format, state)
    assert load_checkpoint(path, format=format).config == preset


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    recorded = {alias: record_session(path, alias, n_by_tier={"train": 2, "oracle": 1}) for alias in "FG"}
    return str(path), {alias: one.positions[:, :2] for alias, one in recorded.items()}


@pytest.mark.parametrize("format", SIZES)
def test_an_imported_checkpoint_is_exported_bit_by_bit(format, store, tmp_path):
    url, positions = store
    path = save_small(tmp_path, format, positions)
    state = torch.load(path, weights_only=False)
    state = state["model"] if format == "vivit" else state
    report = import_checkpoint(format, [path], url, tmp_path / "run")
    assert (report.status, len(report.sessions)) == ("imported", 2)
    assert report.notes == ("Settings that no weight tells are those of args.yaml.",)
    assert verify_run(report.run).problems == ()
    config = load_run(report.run).config
    assert (config.normalization, config.input_layout) == ({"vivit": "vivit-legacy"}.get(format, format), format)
    back = tmp_path / "back.pt"
    assert export_checkpoint(report.run, format, back).n_weights == len(state)
    content = torch.load(back, weights_only=True)
    found = content["model"] if format == "vivit" else content
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name
    assert export_checkpoint(report.run, format, back).status == "already done"
    # Another file of arguments makes another run.
    other = write_arguments(tmp_path / "other.yaml", make_arguments(SIZES[format]) | {"core_mha_dropout": 0.2})
    with pytest.raises(RunError, match="another run lies where this one would be"):
        import_checkpoint(format, [path, other], url, tmp_path / "run")


def test_some_mice_of_a_file_are_taken(store, tmp_path):
    url, positions = store
    path = save_small(tmp_path, "vivit-closed-loop", positions | {"A": positions["F"][:2]})
    report = import_checkpoint("vivit-closed-loop", [path], url, tmp_path / "run", sessions=["G"])
    assert report.notes[-1] == "Sessions of the file that are left out: F, A."
    export_checkpoint(report.run, "vivit-closed-loop", tmp_path / "back.pt")
    state = torch.load(path, weights_only=True)
    mine = {name for name in state if name.split(".")[0] == "core" or name.split(".")[1] == "G"}
    assert torch.load(tmp_path / "back.pt", weights_only=True).keys() == mine


def test_without_arguments_the_preset_says_what_no_weight_tells(store, tmp_path):
    url, positions = store
    path = save(tmp_path, "vivit", make_state(SMALL_2023, positions))
    with pytest.raises(RunError, match=r"blocks\.0\.scale is not that of ViV1T of 2023"):
        import_checkpoint("vivit", [path], url, tmp_path / "run")
    told = {"n_heads": "2", "head_size": "4", "patch_size": "12", "patch_stride": "8", "patch_frames": "3"}
    told["max_frames"] = "40"
    report = import_checkpoint("vivit", [path], url, tmp_path / "run", settings=told)
    assert "No weight tells these settings of the model: patch_size=12, patch_stride=8" in report.notes[0]


def test_a_rate_of_skipping_that_the_weights_tell_is_a_setting(tmp_path):
    state = make_state(SMALL_2023, POSITIONS)
    for name in state:
        if name.endswith("keep_prob"):
            state[name] = torch.tensor(0.75)
    path = save(tmp_path, "vivit", state, make_arguments(SMALL_2023))
    assert load_checkpoint(path, format="vivit").config.drop_path == 0.25
    state["core.vivit.temporal_transformer.blocks.1.drop_path2.keep_prob"] = torch.tensor(0.5)
    path = save(tmp_path, "vivit", state, make_arguments(SMALL_2023))
    with pytest.raises(RunError, match=r"the constant .*blocks\.1\.drop_path2\.keep_prob is not that of ViV1T of 2023"):
        load_checkpoint(path, format="vivit")


def test_readouts_without_a_state_encoder_are_known(tmp_path):
    state = {name: v for name, v in make_state(SMALL_2023, POSITIONS).items() if ".state_encoder." not in name}
    path = save(tmp_path, "vivit", state, make_arguments(SMALL_2023))
    assert not load_checkpoint(path, format="vivit").config.encodes_state


BAD_ARGUMENTS = {
    "another core": ({"core": "fcnn"}, "core fcnn, expected vivit"),
    "blocks one after the other": ({"core_parallel_attention": False}, "core_parallel_attention False, expected True"),
    "another normalization": ({"transform_mode": 3}, "transform_mode 3, expected 2"),
    "a part of the frame": ({"center_crop": 0.8}, "center_crop 0.8, expected 1"),
    "softplus": ({"output_mode": 2}, "output_mode 2, expected 0 or 1"),
    "a size that is none": ({"core_num_heads": "eleven"}, "core_num_heads eleven, expected a whole number"),
    "no size": ({"core_spatial_patch_size": 0}, "core_spatial_patch_size 0, expected a whole number"),
    "a patch too large": ({"core_spatial_patch_size": 40}, "patches of 40 pixels do not fit"),
    "other heads": ({"core_num_heads": 3}, "misshapen"),
    "a share above 1": ({"core_mha_dropout": 3}, "a number below 1"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_arguments_of_another_model_are_refused_by_name(case, tmp_path):
    changes, message = BAD_ARGUMENTS[case]
    with pytest.raises(RunError, match=message) as refused:
        load_checkpoint(save_small(tmp_path, "vivit", **changes), format="vivit")
    assert "\n" not in str(refused.value)


BAD_YAML = {
    "a list": ("- 1\n", "a list"),
    "one value": ("core\n", "a single value"),
    "two documents": ("core: vivit\n---\ncore: vivit\n", "several documents"),
    "a name twice": ("core: vivit\ncore: vivit\n", "core twice"),
    "an object": ("device: !!python/object/apply:os.system [true]\n", "an object, tag:yaml.org,2002:python"),
    "a local object": ("device: !device cuda\n", "an object, !device"),
    "an alias": ("a: &a [1]\nb: *a\n", "an alias"),
    "no YAML": ("core: vivit\ncore_dim: : 1\n", "found no YAML from line 2 on"),
    "no end": ("core: [1\n", "found no YAML from line 2 on"),
    "no characters": (b"core: \x00", "found no YAML: .* characters that are none"),
    "no text": (b"\xff\xfe\x00", "found bytes that are not text in UTF-8"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_files_that_are_no_arguments_are_refused_in_one_line(case, tmp_path):
    content, message = BAD_YAML[case]
    path = tmp_path / "args.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match=message) as refused:
        read_arguments(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_arguments_are_read_as_they_were_written_and_lists_passed_over(tmp_path, monkeypatch):
    path = tmp_path / "args.yaml"
    path.write_text("eps: 1e-08\nn: 3\non: true\nnone: null\nname: 'true'\nlist: [1, 2]\nmap: {a: {b: 1}}\nnan: .nan\n")
    values = read_arguments(path).values
    assert values == {"eps": 1e-08, "n": 3, "on": True, "none": None, "name": "true", "nan": ".nan"}
    # The indices of all neurons of ten mice.
    write_arguments(path, {"neuron_idx": {"A": list(range(80_000))}, "core": "vivit"})
    started = time.process_time()
    assert read_arguments(path).values == {"core": "vivit"}
    assert time.process_time() - started < 20
    monkeypatch.setattr("models.checkpoints.arguments.MAX_CHECKPOINT_ARGUMENTS_SIZE_BYTES", 1000)
    with pytest.raises(RunError, match="the arguments are too large"):
        read_arguments(path)
    with pytest.raises(RunError, match="the arguments cannot be read"):
        read_arguments(tmp_path / "none.yaml")


class _Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def test_numbers_of_numpy_are_read_and_nothing_else_of_it(tmp_path):
    state = make_state(SMALL_2023, POSITIONS)
    scalar = np.float64(1).__reduce__()[0]
    numbers = [np.float32(0.5), np.int64(3), np.bool_(True), np.float64(0.25)]
    path = save(tmp_path, "vivit", state, make_arguments(SMALL_2023))
    content = torch.load(path, weights_only=False)
    torch.save(content | {"scheduler": {"numbers": numbers}}, path)
    assert load_checkpoint(path, format="vivit")
    for bad in (
        np.zeros(3),
        _Reduced(np.array, ([1],)),
        _Reduced(scalar, (np.dtype("O"), b"")),
        _Reduced(scalar, (np.dtype("f8"), b"123")),
        _Reduced(scalar, (_Reduced(np.dtype, ("f8,f8",)), b"")),
    ):
        torch.save(content | {"scheduler": {"bad": bad}}, path)
        with pytest.raises(RunError) as refused:
            load_checkpoint(path, format="vivit")
        assert "\n" not in str(refused.value)
    # Elsewhere they are code.
    torch.save({"epoch": np.float64(3), "model": make_state(SMALL_CLOSED_LOOP, POSITIONS)}, path)
    with pytest.raises(RunError, match="holds code, which is not run"):
        load_checkpoint(path, format="vivit-closed-loop")


def test_a_pickle_of_numpy_1_is_read_alike(tmp_path):
    path = save_small(tmp_path, "vivit")
    old = io.BytesIO()

    class _Old(pickle._Pickler):
        def save_global(self, obj, name=None):
            if getattr(obj, "__module__", "").startswith("numpy._core"):
                self.write(b"cnumpy.core.multiarray\nscalar\n")
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = {**pickle._Pickler.dispatch, type(np.dtype): pickle._Pickler.dispatch[type]}  # noqa: RUF012

    module = type("old", (), {"Pickler": _Old, "dump": pickle.dump, "dumps": pickle.dumps, "load": pickle.load})
    torch.save(torch.load(path, weights_only=False), old, pickle_module=module)
    path.write_bytes(old.getvalue())
    assert b"numpy.core.multiarray" in old.getvalue()
    assert load_checkpoint(path, format="vivit")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("readouts.A.bias", None, r"1 missing \(readouts\.A\.bias\)"),
        ("modulators.A.x", torch.zeros(1), r"1 extra \(modulators\.A\.x\)"),
        ("core.vivit.temporal_transformer.blocks.9.norm.bias", torch.zeros(6), "missing"),
        ("readouts.A.features", torch.zeros(1, 6, 5), r"features \(1, 6, 5\) instead of \(1, 6, 3\)"),
        ("readouts.A.source_grid", torch.zeros(3, 3), r"expected \(neurons, 2\)"),
        ("shifters.A.reg_scale", torch.tensor(0.5), r"the constant shifters\.A\.reg_scale is not that"),
        ("core.vivit.reg_scale", torch.zeros(1), r"found \(1,\) float32"),
        ("core.vivit.spatial_transformer.blocks.0.scale", torch.tensor(1.0), r"blocks\.0\.scale is not that"),
        ("core.vivit.tokenizer.temporal_pos_embedding", torch.zeros(38, 6), "wrong shape"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(name, value, message, tmp_path):
    state = make_state(SMALL_2023, POSITIONS)
    state = {key: one for key, one in state.items() if key != name} if value is None else state | {name: value}
    with pytest.raises(RunError, match=message):
        load_checkpoint(save(tmp_path, "vivit", state, make_arguments(SMALL_2023)), format="vivit")


def test_the_other_version_is_not_recognized(tmp_path):
    for own, other, title in (
        ("vivit", "vivit-closed-loop", "ViV1T-closed-loop"),
        ("vivit-closed-loop", "vivit", "ViV1T"),
    ):
        path = tmp_path / "model.pt"
        torch.save(make_state(SIZES[own], POSITIONS), path)
        with pytest.raises(RunError, match=f"not the weights of a model of bryanlimy/{title}"):
            load_checkpoint(path, format=other)


def test_arguments_are_for_formats_that_have_them(tmp_path):
    path = save_small(tmp_path, "vivit")
    with pytest.raises(UsageError, match="of the format starter-kit have no file of arguments"):
        load_checkpoint(path, arguments=tmp_path / "args.yaml")
    with pytest.raises(UsageError, match=r"is one file, and args\.yaml: found 3 files"):
        import_checkpoint("vivit", [path, path, path], "store", tmp_path / "run")
