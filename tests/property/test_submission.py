from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.frames import FRAMES_PROFILES, FramesProfile, frames_of
from sensorium_data.predictions import from_arrays, open_predictions
from sensorium_data.submission import validate_submission, write_submission
from sensorium_data.submission.zip import open_member

TRIALS = (TrialFacts(3, "live_test_main", 53), TrialFacts(1, "final_test_main", 52))
N_NEURONS = 3
# Every float32 that is a number: subnormals, negative zero, the largest.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(0, 500))
def test_profiles_are_the_slices_their_authors_took(n_frames: int) -> None:
    frames = list(range(n_frames))
    assert list(frames_of("official", n_frames)) == frames[50:]
    assert list(frames_of("50-298", n_frames)) == frames[:300][50:-1]
    assert list(frames_of("51-299", n_frames)) == frames[:300][51:]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("properties") / "store"
    write_session_store(root, "F", TRIALS, n_neurons=N_NEURONS)
    return str(root)


@settings(max_examples=10)
@given(
    live=arrays(np.float32, (N_NEURONS, 53), elements=NUMBERS),
    final=arrays(np.float32, (N_NEURONS, 52), elements=NUMBERS),
    frames=st.sampled_from(FRAMES_PROFILES),
)
def test_any_number_survives_to_the_last_bit(
    store: str, live: np.ndarray, final: np.ndarray, frames: FramesProfile
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        predictions = f"{folder}/predictions"
        from_arrays(predictions, store, {"F": {3: live, 1: final}}, response_units="standardized")
        stored = open_predictions(predictions, "F")["predictions"].sel(trial=3).values
        assert np.array_equal(stored[:, :53].view(np.uint32), live.view(np.uint32))
        report = write_submission(predictions, store, track="main", frames=frames, out=f"{folder}/out")
        assert validate_submission([report.files[0].path], store, frames=frames).passed
        with zipfile.ZipFile(report.files[0].path) as archive:
            for member, values in zip(report.files[0].members, (live, final), strict=True):
                table = pd.read_parquet(io.BytesIO(archive.read(member)))
                cut = values[:, frames_of(frames, values.shape[1]).start : frames_of(frames, values.shape[1]).stop]
                read = np.stack(table["prediction"][0].tolist())
                assert np.array_equal(read.view(np.uint32), np.ascontiguousarray(cut).view(np.uint32))


@given(
    content=st.binary(max_size=300),
    comment=st.binary(max_size=20),
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    steps=st.lists(
        st.tuples(
            st.integers(-350, 350), st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]), st.integers(-1, 350)
        ),
        max_size=8,
    ),
)
def test_member_reads_like_a_file_of_its_bytes(
    content: bytes, comment: bytes, compression: int, steps: list[tuple[int, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.zip"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("before", b"x" * 100)
            info = zipfile.ZipInfo("member")
            info.comment, info.compress_type = comment, compression
            archive.writestr(info, content)
            archive.writestr("after", b"y" * 100)
        oracle = io.BytesIO(content)
        with zipfile.ZipFile(path) as archive, open_member(archive, path, archive.getinfo("member")) as section:
            section.open().close()
            member = section.open()
            for offset, whence, size in steps:
                target = max(
                    0, {io.SEEK_SET: 0, io.SEEK_CUR: oracle.tell(), io.SEEK_END: len(content)}[whence] + offset
                )
                assert member.seek(target) == oracle.seek(target)
                assert member.read(size) == oracle.read(size)
                assert member.tell() == oracle.tell()
            assert member.seek(0, io.SEEK_END) == len(content)
            member.close()
