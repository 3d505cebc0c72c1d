"""Archives whose content is wrong: each fault is refused with an error that names session, trial and file."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fixtures.archives import SESSION, npy, session_members, write_zip
from sensorium_data.archive import MODALITIES, SessionArchive
from sensorium_data.archive.zip_index import LOCAL_HEADER
from sensorium_data.errors import ArchiveError, SensoriumError
from sensorium_data.sessions import find_session

FOLDER = SESSION.name
VICTIM = f"{FOLDER}/data/behavior/1.npy"


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Read what a conversion reads: every trial's files and everything under ``meta``."""
    with SessionArchive.open(str(path), SESSION) as archive:
        names = [archive.member(f"data/{m}/{trial}.npy") for trial in archive.trial_ids() for m in MODALITIES]
        names += [name for name in archive.entries if name.startswith(f"{FOLDER}/meta/")]
        return {name: archive.read_array(name) for name in names}


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    # Videos of one frame: nothing here depends on their size.
    return {name: npy(array[..., :1]) if "videos" in name else npy(array) for name, array in session_members().items()}


@pytest.fixture
def path(tmp_path: Path, members: Mapping[str, bytes]) -> Path:
    return write_zip(tmp_path / "a.zip", members)


def test_the_archive_that_the_faults_are_put_into_is_sound(path: Path, members: Mapping[str, bytes]) -> None:
    arrays = read_all(path)
    assert set(arrays) == set(members)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, np.load(io.BytesIO(members[name])), strict=True)


def renamed(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members[f"{FOLDER}/{name}"] = members.pop(VICTIM)

    return change


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.pop(f"{FOLDER}/{name}") and None


def replaced(content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({VICTIM: content})


def added(*names: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update(dict.fromkeys(names, b"x"))


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], None], str, int | None]] = {
    "a member that is missing": (without("data/behavior/1.npy"), r"found no .*/data/behavior/1\.npy", 1),
    "a trial that misses all but one": (
        lambda members: [members.pop(f"{FOLDER}/data/{m}/10.npy") for m in MODALITIES[1:]] and None,
        r"found no .*/data/\w+/10\.npy and 1 more",
        10,
    ),
    "a member renamed to another trial's": (renamed("data/behavior/7.npy"), r"trials lack files", 1),
    "a member renamed to no trial's": (renamed("data/behavior/one.npy"), r"one\.npy: a file is not named by", None),
    "a member renamed to another kind of file": (renamed("data/behavior/1.txt"), r"1\.txt: a file is not named", None),
    "a member renamed to another folder": (renamed("data/behaviour/1.npy"), r"found no .*/data/behavior/1\.npy", 1),
    "a member renamed with capitals": (renamed("data/behavior/1.NPY"), r"1\.NPY: a file is not named by", None),
    "an empty member": (replaced(b""), r"behavior/1\.npy: the member is not a \.npy array", 1),
    "a truncated array": (replaced(npy(np.zeros((2, 20)))[:-3]), r"found 317 bytes, expected 320 bytes", 1),
    "a longer array": (replaced(npy(np.zeros((2, 20))) + b"123"), r"found 323 bytes, expected 320 bytes", 1),
    "objects": (replaced(npy(np.array([{}, None]))), r"holds Python objects, which are never unpickled", 1),
    "text": (replaced(b"a,b\n1,2\n"), r"the member is not a \.npy array", 1),
    "a name that leads out": (added(f"{FOLDER}/data/videos/../../../x"), "leads out of the archive", None),
    "a name from the root": (added("/etc/passwd"), "leads out of the archive", None),
    "a name of another drive": (added("C:/windows"), "leads out of the archive", None),
}


@pytest.mark.parametrize(("change", "match", "trial"), WRONG.values(), ids=WRONG)
def test_wrong_content_is_refused(
    tmp_path: Path,
    members: Mapping[str, bytes],
    change: Callable[[dict[str, bytes]], None],
    match: str,
    trial: int | None,
) -> None:
    wrong = dict(members)
    change(wrong)
    path = write_zip(tmp_path / "a.zip", wrong)
    with pytest.raises(SensoriumError, match=match) as caught:
        read_all(path)
    assert (caught.value.session, caught.value.trial) == (FOLDER, trial)
    assert str(caught.value.path).startswith(str(path))
    assert caught.value.remedy


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_that_is_there_twice_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(VICTIM, npy(np.zeros((2, 20))))
    with pytest.raises(ArchiveError, match=r"data/behavior/1\.npy: the archive holds a member twice") as caught:
        read_all(path)
    assert (caught.value.session, caught.value.trial) == (FOLDER, 1)


def test_an_archive_cut_at_any_member_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    for stop in [*offsets[1:], *range(len(raw) - 100, len(raw))]:
        path.write_bytes(raw[:stop])
        with pytest.raises(ArchiveError, match=r"truncated|no zip|end record|central directory|fit into") as caught:
            read_all(path)
        assert caught.value.session == FOLDER
        assert caught.value.path == str(path)


def test_a_bit_flipped_anywhere_in_a_member_is_refused(path: Path, members: Mapping[str, bytes]) -> None:
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(VICTIM)
    start = info.header_offset + LOCAL_HEADER.size + len(VICTIM)
    for at in range(start, start + info.compress_size):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        with SessionArchive.open(str(path), SESSION) as archive, pytest.raises(ArchiveError) as caught:
            archive.read_trial("behavior", 1)
        assert (caught.value.session, caught.value.trial) == (FOLDER, 1)
        assert caught.value.path == f"{path}: {VICTIM}"


class TestUnexpected:
    def test_members_without_a_place_are_left_out_and_listed(
        self, tmp_path: Path, members: Mapping[str, bytes]
    ) -> None:
        other = find_session("G").name
        strange = [
            f"{FOLDER}/data/foo/1.npy",
            f"{FOLDER}/data/notes.txt",
            f"{FOLDER}/README.md",
            f"{other}/data/videos/0.npy",
            "LICENSE",
        ]
        usual = [f"{FOLDER}/config.json", f"{FOLDER}/meta/neurons/anything.npy"]
        junk = [f"__MACOSX/{FOLDER}/._data", f"{FOLDER}/.DS_Store", f"{FOLDER}/data/foo/._1.npy"]
        path = write_zip(tmp_path / "a.zip", {**members, **dict.fromkeys([*strange, *usual, *junk], npy(np.zeros(1)))})
        assert set(read_all(path)) == {*members, *usual[1:]}
        with SessionArchive.open(str(path), SESSION) as archive:
            assert archive.unexpected == tuple(strange)

    def test_a_published_archive_has_none(self, path: Path) -> None:
        with SessionArchive.open(str(path), SESSION) as archive:
            assert archive.unexpected == ()


def test_a_trial_s_fingerprint_is_its_members_content_s(path: Path, members: Mapping[str, bytes]) -> None:
    with SessionArchive.open(str(path), SESSION) as archive:
        for trial in archive.trial_ids():
            contents = {modality: members[f"{FOLDER}/data/{modality}/{trial}.npy"] for modality in MODALITIES}
            expected = {modality: (zlib.crc32(content), len(content)) for modality, content in contents.items()}
            assert archive.fingerprint_trial(trial) == expected
        assert archive.fingerprint_trial(99) == {}


class TestZipBombs:
    SIZE_BYTES = 64 << 20

    @pytest.fixture
    def bomb(self, tmp_path: Path) -> Path:
        return write_zip(tmp_path / "a.zip", {VICTIM: bytes(self.SIZE_BYTES)})

    def peak_while_refused(self, path: Path, match: str) -> int:
        tracemalloc.start()
        try:
            with pytest.raises(ArchiveError, match=match), SessionArchive.open(str(path), SESSION) as archive:
                archive.read_trial("behavior", 1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def declare(self, path: Path, size_bytes: int) -> None:
        raw = bytearray(path.read_bytes())
        struct.pack_into("<L", raw, raw.index(b"PK\x01\x02") + 24, size_bytes)
        path.write_bytes(raw)

    def test_one_that_declares_less_is_inflated_no_further_than_declared(self, bomb: Path) -> None:
        self.declare(bomb, 1000)
        assert (
            self.peak_while_refused(bomb, "found a damaged or longer stream, expected a stream of 1000 bytes")
            < self.SIZE_BYTES // 16
        )

    def test_one_that_declares_more_than_deflate_can_hold_is_refused_by_its_index(self, bomb: Path) -> None:
        self.declare(bomb, 0xF0000000)
        assert self.peak_while_refused(bomb, "claims a size that deflate cannot reach") < self.SIZE_BYTES // 16

    def test_one_larger_than_any_session_s_is_not_inflated(self, bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sensorium_data.limits.MAX_MEMBER_SIZE_BYTES", self.SIZE_BYTES - 1)
        assert self.peak_while_refused(bomb, "too large to be a session's") < self.SIZE_BYTES // 16

    def test_members_that_share_their_bytes_are_refused(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {f"{FOLDER}/data/videos/{n}.npy": bytes(1000) for n in range(3)})
        raw = bytearray(path.read_bytes())
        first = raw.index(b"PK\x01\x02")
        struct.pack_into("<L", raw, raw.index(b"PK\x01\x02", first + 1) + 42, 0)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="does not fit into the archive"):
            SessionArchive.open(str(path), SESSION)


@pytest.mark.parametrize(("method", "number"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_an_unsupported_compression_is_named(
    tmp_path: Path, members: Mapping[str, bytes], method: int, number: int
) -> None:
    path = write_zip(tmp_path / "a.zip", members, method)
    with pytest.raises(ArchiveError, match=rf"unsupported way: found method {number}, .*; pack the archive again"):
        read_all(path)


def test_an_encrypted_member_is_named(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    at = raw.rindex(VICTIM.encode()) - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    raw[at + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ArchiveError, match=r"the member is encrypted; pack the archive again") as caught:
        read_all(path)
    assert (caught.value.session, caught.value.trial) == (FOLDER, 1)
