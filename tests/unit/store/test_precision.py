"""What each precision profile keeps of a value, and what it says about its error."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.stores import read_files
from sensorium_data.errors import StoreError
from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.store import Precision, cast_values, open_session, open_statistics
from sensorium_data.store.precision import Rounding
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording
from sensorium_data.windows import TrialReader

RESPONSE_FLOOR = 1e-6


def convert(recording: Recording, folder: Path, precision: Precision | None) -> str:
    recording.write(folder / "archives")
    store = str(folder / f"store-{precision}")
    convert_session(recording.session, store, source=str(folder / "archives"), precision=precision)
    return store


def keep_bits(value: float, n_bits: int) -> float:
    """Round to ``n_bits`` of mantissa after the leading one, ties to even: by exact arithmetic on Python's floats."""
    if value == 0 or not np.isfinite(value):
        return value
    exponent = int(np.floor(np.log2(abs(value))))
    scale = 2.0 ** (n_bits - exponent)
    return float(round(value * scale) / scale)


@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 9)),
        elements=st.floats(-4e3, 4e3) | st.floats(-1e-5, 1e-5) | st.just(float("nan")) | st.just(float("inf")),
    ),
    st.integers(3, 16),
)
def test_rounding_keeps_as_many_bits_as_asked_for_and_tells_its_error(values: np.ndarray, n_bits: int) -> None:
    stored = np.empty(values.shape, np.float32)
    largest = cast_values(values, stored, Rounding(floor=RESPONSE_FLOOR, keep_bits=n_bits))
    for value, kept in zip(values.ravel().tolist(), stored.ravel().tolist(), strict=True):
        single = float(np.float32(value))
        expected = 0.0 if abs(keep_bits(single, n_bits)) < np.float32(RESPONSE_FLOOR) else keep_bits(single, n_bits)
        assert kept == expected or (np.isnan(kept) and np.isnan(value))
    finite = np.isfinite(values)
    errors = np.abs(values[finite] - stored.astype(np.float64)[finite])
    assert largest == errors.max(initial=0.0)


@given(
    npst.arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(0, 255) | st.just(float("nan"))
    )
)
def test_steps_are_kept_to_half_a_step(values: np.ndarray) -> None:
    stored = np.empty(values.shape, np.float32)
    largest = cast_values(values, stored, Rounding(step=1 / 16))
    finite = np.isfinite(values)
    assert (np.isnan(stored) == ~finite).all()
    assert (stored[finite] * 16 == np.rint(stored[finite] * 16)).all()
    errors = np.abs(values[finite] - stored[finite].astype(np.float64))
    # The cast to float32 before comes on top.
    assert largest == errors.max(initial=0.0) <= 1 / 32 + 255 * 2.0**-24


def test_a_nan_of_any_kind_stays_one() -> None:
    # Every bit of the mantissa set: rounding up would carry into the sign.
    nans = np.array([[0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001]], np.uint32).view(np.float32)
    stored = np.empty(nans.shape, np.float32)
    assert cast_values(nans, stored, Rounding(keep_bits=10)) == 0
    assert np.isnan(stored).all()


def test_exact64_keeps_the_values_themselves(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle"])
    store = convert(recording, tmp_path, Precision.EXACT64)
    dataset = open_session(store, "A").load()
    for number, trial in recording.trials.items():
        block = dataset.sel(trial=number)
        np.testing.assert_array_equal(block.videos[:20], trial.videos[..., :20].transpose(2, 0, 1))
        for name in ("responses", "behavior", "pupil_center"):
            np.testing.assert_array_equal(block[name][:, :20], getattr(trial, name)[:, :20])
    for variable in dataset.data_vars.values():
        assert variable.dtype == np.float64
        assert variable.attrs["largest_absolute_error"] == 0
    std = open_statistics(store, "A").responses.sel(statistic="std").values
    np.testing.assert_array_equal(std, recording.statistics["responses", "std"])


def test_compact_stays_within_its_stated_errors_and_says_how_large_they_are(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle"], n_neurons=300)
    store = convert(recording, tmp_path, Precision.COMPACT)
    dataset = open_session(store, "A").load()
    assert dataset.attrs["precision"] == "compact"
    errors: dict[str, float] = dict.fromkeys(dataset.data_vars, 0.0)
    for number, trial in recording.trials.items():
        block = dataset.sel(trial=number)
        responses, kept = trial.responses[:, :20], block.responses.values[:, :20].astype(np.float64)
        floor = np.abs(responses) < RESPONSE_FLOOR / 2
        assert floor.any()
        assert not kept[floor].any()
        above = np.abs(responses) > RESPONSE_FLOOR * 2
        relative = np.abs(kept - responses)[above] / np.abs(responses)[above]
        assert relative.max() <= 2.0**-11 * (1 + 1e-6)
        videos = trial.videos[..., :20].transpose(2, 0, 1)
        assert np.abs(block.videos.values[:20].astype(np.float64) - videos).max() <= 1 / 32 + 1e-5
        for name, array in trial.arrays().items():
            array = array.transpose(2, 0, 1) if name == "videos" else array
            cut = (slice(0, 20),) if name == "videos" else (slice(None), slice(0, 20))
            difference = np.abs(block[name].values[cut].astype(np.float64) - array[cut])
            errors[name] = max(errors[name], float(difference.max()))
    assert {str(variable.dtype) for variable in dataset.data_vars.values()} == {"float32"}
    for name, error in errors.items():
        assert dataset[name].attrs["largest_absolute_error"] == error


def test_compact_takes_less_space(tmp_path: Path) -> None:
    recording = make_recording("A", ["train"] * 4, n_neurons=300, n_frames=300, n_padded=324)
    sizes = {}
    for precision in Precision:
        files = read_files(Path(convert(recording, tmp_path, precision)))
        sizes[precision] = sum(
            len(data) for key, data in files.items() if "/responses/c/" in key or "/videos/c/" in key
        )
    assert sizes[Precision.COMPACT] < 0.8 * sizes[Precision.EXACT] < 0.6 * sizes[Precision.EXACT64]


@pytest.mark.parametrize("precision", list(Precision))
def test_a_store_of_any_precision_is_read_as_float32_blocks_for_training(precision: Precision, tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle"])
    store = convert(recording, tmp_path, precision)
    assert verify_session(store, "A").passed
    block = TrialReader(store, ["A"]).read("A", 0)
    for array in (block.videos, block.responses, block.behavior):
        assert array is not None
        assert array.dtype == np.float32
    np.testing.assert_allclose(block.videos, recording.trials[0].videos[..., :20].transpose(2, 0, 1), atol=1 / 31)


def test_the_precision_of_a_store_is_kept_where_none_is_asked_for(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle"])
    store = convert(recording, tmp_path, Precision.COMPACT)
    archives = str(tmp_path / "archives")
    assert convert_session(recording.session, store, source=archives).status == "already done"
    recording.with_trial(0, responses=recording.trials[0].responses + 1).write(tmp_path / "archives")
    report = convert_session(recording.session, store, source=archives)
    assert (report.status, report.precision) == ("updated", "compact")


def test_another_precision_than_the_stores_is_refused(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle"])
    store = convert(recording, tmp_path, Precision.COMPACT)
    with pytest.raises(StoreError, match=r"another precision: found compact, expected exact; .*another store"):
        convert_session(recording.session, store, source=str(tmp_path / "archives"), precision=Precision.EXACT)


def test_an_interrupted_run_of_another_precision_starts_over(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle", "oracle"])
    recording.write(tmp_path / "archives")

    def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
        if label.startswith("convert") and n_done:
            raise InterruptedError

    arguments = (recording.session, str(tmp_path / "store"))
    source = str(tmp_path / "archives")
    with pytest.raises(InterruptedError):
        convert_session(*arguments, source=source, progress=stop, jobs=1, precision=Precision.EXACT)
    report = convert_session(*arguments, source=source, precision=Precision.COMPACT)
    assert (report.n_trials_resumed, report.precision) == (0, "compact")
    assert verify_session(str(tmp_path / "store"), "A").passed
