"""No changed byte is silent: `sensorium verify` finds each one, and readers report it or return what was written."""

from __future__ import annotations

import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.submissions import Predicted
from flows.cli.verification import verify_path
from sensorium_data.errors import SensoriumError
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.predictions import from_arrays, open_predictions
from sensorium_data.progress import ignore_progress
from sensorium_data.store import open_store
from sensorium_data.submission import write_submission
from sensorium_data.testing.recordings import make_recording

TIERS = ["train", "oracle", "oracle", "live_test_main"]
N_EXAMPLES = max(1, settings().max_examples // 10)

byte_changes = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(1, 255))


@functools.cache
def made() -> Path:
    """A store of a session in its second version, predictions of it, and a submission."""
    root = Path(tempfile.mkdtemp())
    store = str(root / "store")
    sources = str(root / "archives")
    recording = make_recording("F", TIERS, n_frames=20, n_padded=22, movies={1: 9, 2: 9}, n_neurons=4)
    for version in (recording, recording.with_trial(0, responses=recording.trials[0].responses + 1)):
        version.write(root / "archives")
        convert_session(version.session, store, source=sources)
    link_movies(store)
    recorded = open_store(store)["F"]
    oracle = recorded.trial.values[recorded.tier.values == "oracle"].tolist()
    generator = np.random.default_rng(0)
    arrays = {"F": {trial: generator.random((4, 15)) for trial in oracle}}
    from_arrays(str(root / "predictions"), store, arrays, response_units="raw")
    predicted = Predicted(root / "submitted")
    write_submission(predicted.path, predicted.store, track="main", out=str(root / "submission"))
    return root


@pytest.fixture(scope="module", autouse=True)
def _removed() -> Iterator[None]:
    yield
    shutil.rmtree(made(), ignore_errors=True)
    made.cache_clear()


@contextmanager
def changed_byte(folder: Path, change: tuple[float, float, int]) -> Iterator[Path]:
    """Change one byte of one file in a folder, and change it back."""
    which, where, by = change
    # Files of every size alike; nobody reads a version that was replaced.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_replaced(path, folder))
    path = files[int(which * len(files))]
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[int(where * len(damaged))] ^= by
    path.write_bytes(damaged)
    try:
        yield path
    finally:
        path.write_bytes(sound)


def is_replaced(path: Path, folder: Path) -> bool:
    group = folder / path.relative_to(folder).parts[0]
    return group.is_dir() and group.with_name(f"{group.name}.v2").is_dir()


def find_problems(path: Path) -> list[str]:
    reports, failures = verify_path(str(path), (), source=None, jobs=1, progress=ignore_progress)
    return [problem for report in reports for problem in report.problems] + [str(failure) for failure in failures]


@pytest.mark.parametrize("name", ["store", "predictions", "submission"])
@settings(max_examples=N_EXAMPLES)
@given(change=byte_changes)
def test_verify_finds_every_changed_byte(name: str, change: tuple[float, float, int]) -> None:
    folder = made() / name
    with changed_byte(folder, change) as path:
        assert find_problems(folder), path


@pytest.mark.parametrize("name", ["store", "predictions", "submission"])
def test_verify_finds_nothing_where_nothing_is_changed(name: str) -> None:
    assert find_problems(made() / name) == []


READERS: dict[str, Callable[[Path], xr.DataTree | xr.Dataset]] = {
    "store": lambda root: open_store(str(root / "store")).tree().load(),
    "predictions": lambda root: open_predictions(str(root / "predictions"), "F").load(),
}


@functools.cache
def read_sound(name: str) -> xr.DataTree | xr.Dataset:
    return READERS[name](made())


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=N_EXAMPLES)
@given(change=byte_changes)
def test_a_reader_reports_a_changed_byte_or_returns_what_was_written(
    name: str, change: tuple[float, float, int]
) -> None:
    expected = read_sound(name)
    with changed_byte(made() / name, change):
        try:
            found = READERS[name](made())
        except SensoriumError:
            return
    assert found.identical(expected)


@settings(max_examples=N_EXAMPLES)
@given(change=byte_changes)
def test_plain_xarray_raises_on_a_changed_byte_of_every_chunk_but_of_videos(change: tuple[float, float, int]) -> None:
    which, where, by = change
    root = made()
    group = next(path for path in sorted((root / "store").iterdir()) if path.is_dir())
    arrays = [path.parent for path in sorted(group.rglob("c")) if path.parent.name != "videos"]
    array = arrays[int(which * len(arrays))]
    chunk = sorted(path for path in array.rglob("c/**/*") if path.is_file())[0]
    sound = chunk.read_bytes()
    damaged = bytearray(sound)
    damaged[int(where * len(damaged))] ^= by
    chunk.write_bytes(damaged)
    try:
        with pytest.raises(Exception), warnings.catch_warnings():  # noqa: B017, PT011 - whatever Zarr raises
            zarr.open_array(str(array), mode="r")[...]
    finally:
        chunk.write_bytes(sound)
