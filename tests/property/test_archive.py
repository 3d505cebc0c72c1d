from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.archives import SESSION, npy, session_members, write_zip
from sensorium_data.archive import SessionArchive
from sensorium_data.archive.container import ZipContainer
from sensorium_data.archive.sources import ByteSource
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, read_index
from sensorium_data.errors import SensoriumError

FOLDER = SESSION.name


class BytesSource(ByteSource):
    """Bytes in memory."""

    def __init__(self, content: bytes, tail_size_bytes: int = TAIL_SIZE_BYTES) -> None:
        self.url = "memory"
        self.size_bytes = len(content)
        self.modified = None
        self.tail = content[max(0, len(content) - tail_size_bytes) :]
        self.content = content

    def _read(self, start: int, stop: int) -> bytes:
        return self.content[start:stop]

    def close(self) -> None:
        pass


def open_bytes(content: bytes, tail_size_bytes: int = TAIL_SIZE_BYTES) -> SessionArchive:
    source = BytesSource(content, tail_size_bytes)
    return SessionArchive(ZipContainer(source, read_index(source)))


# Neither `..` nor `._x`, which is junk.
parts = st.text("abcÄß日 .-_", min_size=1, max_size=8).filter(lambda part: part != ".." and not part.startswith("._"))
names = st.lists(parts, min_size=1, max_size=3).map(lambda parts: "/".join([FOLDER, *parts]))
contents = st.one_of(st.binary(max_size=300), st.integers(0, 5000).map(bytes))


@given(
    members=st.dictionaries(names, contents, min_size=1),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    comment=st.binary(max_size=50).filter(lambda comment: b"PK" not in comment),
    before=st.binary(max_size=50),
    zip64=st.booleans(),
    tail_size_bytes=st.integers(300, 1000),
)
def test_every_archive_that_zipfile_writes_reads_as_zipfile_reads_it(
    members: dict[str, bytes], method: int, comment: bytes, before: bytes, zip64: bool, tail_size_bytes: int
) -> None:
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(stream, "w", method) as archive:
        if zip64:
            patch.setattr(zipfile, "ZIP64_LIMIT", 100)
            patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
        archive.close()
    raw = before + stream.getvalue()
    with zipfile.ZipFile(io.BytesIO(raw)) as oracle, open_bytes(raw, tail_size_bytes) as archive:
        assert [*archive.entries] == oracle.namelist()
        for info in oracle.infolist():
            assert archive.read_member(info.filename) == oracle.read(info) == members[info.filename]


@given(
    array=npst.arrays(
        st.one_of(npst.floating_dtypes(), npst.integer_dtypes(), npst.boolean_dtypes(), npst.unicode_string_dtypes()),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    is_fortran=st.booleans(),
)
def test_every_array_reads_as_numpy_reads_it(array: np.ndarray, is_fortran: bool) -> None:
    array = np.asfortranarray(array) if is_fortran and array.ndim else array
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{FOLDER}/a.npy", npy(array))
    with open_bytes(stream.getvalue()) as archive:
        read = archive.read_array(f"{FOLDER}/a.npy")
    oracle = np.load(io.BytesIO(npy(array)))
    assert read.dtype == oracle.dtype
    np.testing.assert_array_equal(read, oracle, strict=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, np.ndarray]]:
    arrays = {name: array for name, array in session_members((0, 1)).items() if "behavior" in name or "meta" in name}
    folder: Path = tmp_path_factory.mktemp("whole")
    path = write_zip(folder / "a.zip", {name: npy(array) for name, array in arrays.items()})
    return path.read_bytes(), arrays


def read_all(raw: bytes) -> dict[str, np.ndarray]:
    with open_bytes(raw) as archive:
        return {name: archive.read_array(name) for name in archive.entries}


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_byte_is_an_error_or_changes_nothing(
    whole: tuple[bytes, dict[str, np.ndarray]], data: st.DataObject
) -> None:
    raw, arrays = whole
    # Half of the tries hit the central directory, which is small.
    at = data.draw(st.one_of(st.integers(0, len(raw) - 1), st.integers(len(raw) - 700, len(raw) - 1)))
    value = data.draw(st.integers(0, 255))
    changed = raw[:at] + bytes([value]) + raw[at + 1 :]
    try:
        read = read_all(changed)
    except SensoriumError:
        return
    # A name in the central directory may become junk's, or end in a slash; no array may be another one.
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


@given(data=st.data())
def test_a_truncated_archive_is_an_error(whole: tuple[bytes, dict[str, np.ndarray]], data: st.DataObject) -> None:
    raw, _ = whole
    with pytest.raises(SensoriumError):
        read_all(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x05\x06", b"PK\x06\x06", b"PK\x01\x02"]))
@example(b"PK\x05\x06" + bytes(18), b"")
def test_arbitrary_bytes_are_an_error(raw: bytes, signature: bytes) -> None:
    with pytest.raises(SensoriumError):
        open_bytes(raw + signature + raw)


@settings(max_examples=300)
@given(
    header=st.one_of(
        st.text(max_size=200).map(lambda text: text.encode("utf-8")),
        st.from_regex(rb"\{'descr': .{0,20}, 'fortran_order': (True|False|0), 'shape': \(.{0,10}\)\}", fullmatch=True),
        st.sampled_from(
            [b"(" * 9000, b"[" * 9000 + b"]" * 9000, b"{'descr': '<f8', 'shape': (9**9**9,)}", b"-" * 9000]
        ),
    ),
    payload=st.binary(max_size=40),
)
def test_arbitrary_npy_headers_are_an_error_or_an_array(header: bytes, payload: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{FOLDER}/a.npy", content)
    with open_bytes(stream.getvalue()) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers as Python 2 wrote them
        try:
            array = archive.read_array(f"{FOLDER}/a.npy")
        except SensoriumError:
            return
    np.testing.assert_array_equal(array, np.load(io.BytesIO(content)))
