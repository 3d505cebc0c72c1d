"""Folders of files: what is listed, what is known without reading, and what is refused."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import fsspec
import pytest

from fixtures.archives import IMPATIENT, SESSION
from sensorium_data.archive import tree as tree_module
from sensorium_data.archive.tree import TreeContainer
from sensorium_data.errors import ArchiveError, SensoriumError, SourceChangedError, SourceError

FILES = {"config.json": b"{}", "data/videos/0.npy": bytes(1000), "meta/trials/tiers.npy": b"x", "notes.txt": b"mine"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "mouse" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "mouse"


def test_files_are_listed_and_read(folder: Path) -> None:
    tree = TreeContainer.open(str(folder))
    assert {name: tree.read(name, session="") for name in tree.entries} == FILES
    assert (tree.label, tree.url, tree.size_bytes) == ("mouse", str(folder), 1003)
    for name, content in FILES.items():
        assert tree.fingerprint(name) == (zlib.crc32(content), len(content))
        assert tree.entries[name].size_bytes == tree.entries[name].compressed_size_bytes == len(content)


def test_checksums_are_those_of_all_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_PIECE_SIZE_BYTES", 7)
    assert TreeContainer.open(str(folder)).fingerprint("data/videos/0.npy") == (zlib.crc32(bytes(1000)), 1000)


def test_the_digest_is_the_contents_and_the_stamp_the_times(folder: Path) -> None:
    before = TreeContainer.open(str(folder))
    (folder / "notes.txt").write_text("nothing of the session's")
    (folder / "data/.DS_Store").write_text("junk")
    same = TreeContainer.open(folder.as_uri())
    assert (same.digest, same.stamp) == (before.digest, before.stamp)
    os.utime(folder / "config.json", (1e9, 1e9))
    touched = TreeContainer.open(str(folder))
    assert touched.digest == before.digest
    assert touched.stamp != before.stamp
    (folder / "config.json").write_bytes(b"[]")
    assert TreeContainer.open(str(folder)).digest != before.digest


def test_what_is_recalled_is_not_read_while_nothing_changes(folder: Path) -> None:
    name, known = "data/videos/0.npy", (7, 1000)
    tree = TreeContainer.open(str(folder))
    stamp = tree.stamp_of(name)
    assert stamp is not None
    tree.recall(name, stamp, known)
    tree.recall("data/videos/9.npy", stamp, known)
    assert tree.fingerprint(name) == known
    for changed_stamp, fingerprint in (("another", known), (stamp, (7, 999))):
        tree = TreeContainer.open(str(folder))
        tree.recall(name, changed_stamp, fingerprint)
        assert tree.fingerprint(name) == (zlib.crc32(bytes(1000)), 1000)


def test_a_file_that_changed_since_it_was_listed_is_told(folder: Path) -> None:
    tree = TreeContainer.open(str(folder))
    os.utime(folder / "config.json", (1e9, 1e9))
    (folder / "meta/trials/tiers.npy").unlink()
    with pytest.raises(SourceChangedError, match=r"mouse/config\.json: the archive changed.*start again"):
        tree.read("config.json", session="")
    with pytest.raises(SourceError, match=r"mouse/meta/trials/tiers\.npy: there is no such file"):
        tree.read("meta/trials/tiers.npy", session="")


def test_a_file_larger_than_any_session_s_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium_data.limits.MAX_MEMBER_SIZE_BYTES", 999)
    tree = TreeContainer.open(str(folder), SESSION.name)
    for read in (tree.fingerprint, lambda name: tree.read(name, session="")):
        with pytest.raises(SourceError, match=r"trial 0, .*too large.*found 1000 bytes, expected at most 999"):
            read("data/videos/0.npy")


def test_what_is_no_file_is_refused_without_waiting_for_it(folder: Path) -> None:
    os.mkfifo(folder / "data/videos/1.npy")
    tree = TreeContainer.open(str(folder))
    with pytest.raises(SensoriumError, match=r"data/videos/1\.npy: this is no file"):
        tree.read("data/videos/1.npy", session="")


class TestRemote:
    @pytest.fixture
    def url(self, folder: Path):
        filesystem = fsspec.filesystem("memory")
        filesystem.put(str(folder), "/of-trees/mouse", recursive=True)
        yield "memory://of-trees/mouse"
        filesystem.rm("/of-trees", recursive=True)

    def test_the_same_files_have_the_same_digest(self, url: str, folder: Path) -> None:
        tree = TreeContainer.open(url, policy=IMPATIENT)
        assert tree.digest == TreeContainer.open(str(folder)).digest
        assert {name: tree.read(name, session="") for name in tree.entries} == FILES

    def test_a_file_of_another_size_is_told(self, url: str) -> None:
        tree = TreeContainer.open(url, policy=IMPATIENT)
        fsspec.filesystem("memory").pipe("/of-trees/mouse/config.json", b"longer")
        with pytest.raises(SourceChangedError, match=r"config\.json.*found 6 bytes"):
            tree.read("config.json", session="")

    @pytest.mark.parametrize("name", ["/of-trees/mouse/data/../../../x", "/of-trees/other/x", "/etc/passwd"])
    def test_names_that_lead_out_are_refused(self, url: str, name: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(fsspec.filesystem("memory")), "find", lambda *_, **__: {name: {"size": 1}})
            with pytest.raises(ArchiveError, match=r"leads out of the session's folder: found .*do not trust"):
                TreeContainer.open(url, policy=IMPATIENT)
