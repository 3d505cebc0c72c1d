"""Sessions that are not packed as they were published: unpacked folders, and archives that were packed anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fixtures.packings import PACKINGS, pack
from sensorium_data.archive import SessionArchive, open_archive
from sensorium_data.errors import ArchiveError, SensoriumError, SourceChangedError
from sensorium_data.ingest import choose_sessions, compare_with_archive, convert_session
from sensorium_data.ingest.conversion_report import ConversionReport
from sensorium_data.store import open_session, open_store
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording, npy

TIERS = ["train", "oracle", "live_test_bonus"]
#: Nothing in these says whose they are.
NAMELESS = ("another file name, flat", "a tree of another name", "a tree that is the source")
ASSUMED = "that it is this session's is assumed"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording("A", TIERS)


@pytest.fixture(scope="module")
def published(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the store that is made of the archive as it was published."""
    folder = tmp_path_factory.mktemp("published")
    convert(recording, recording.write(folder).parent, folder / "store")
    return open_store(str(folder / "store")).digest("A")


def convert(recording: Recording, source: Path | str, store: Path) -> ConversionReport:
    return convert_session(recording.session, str(store), source=str(source))


def read_members(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that takes the name of every file that is read whole, or for its checksum."""
    from sensorium_data.archive.tree import LocalTree

    names: list[str] = []
    read = LocalTree._read

    def note(self: LocalTree, entry, piece_size_bytes: int):
        names.append(entry.name)
        yield from read(self, entry, piece_size_bytes)

    monkeypatch.setattr(LocalTree, "_read", note)
    return names


@pytest.mark.parametrize("kind", PACKINGS)
def test_every_packing_is_ingested_verified_and_found_done(
    kind: str, recording: Recording, published: str, tmp_path: Path
) -> None:
    source, store = PACKINGS[kind](recording, tmp_path / "source"), tmp_path / "store"
    report = convert(recording, source, store)
    assert (report.status, report.n_trials) == ("converted", 3)
    assert open_store(str(store)).digest("A") == published
    assert any(ASSUMED in note for note in report.notes) == (kind in NAMELESS)
    assert not any("have no place" in note for note in report.notes)
    with open_archive(recording.session, [str(source)]) as archive:
        assert compare_with_archive(str(store), "A", archive).passed
        assert open_session(str(store), "A").attrs["source"] == report.source == archive.url
    assert convert(recording, source, store).status == "already done"


class TestTree:
    @pytest.fixture
    def tree(self, recording: Recording, tmp_path: Path) -> Path:
        return recording.write_tree(tmp_path / "source")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    def test_what_is_done_is_told_without_reading_the_trials(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert(recording, tree, store)
        names = read_members(monkeypatch)
        assert convert(recording, tree, store).status == "already done"
        assert sorted(names) == [
            "meta/neurons/cell_motor_coordinates.npy",
            "meta/neurons/unit_ids.npy",
            "meta/trials/tiers.npy",
        ]

    def test_each_file_is_read_once(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = read_members(monkeypatch)
        convert(recording, tree, store)
        trials = [name for name in names if name.startswith("data/")]
        assert len(trials) == len(set(trials)) == 12

    def test_a_touched_file_is_read_and_found_the_same(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert(recording, tree, store)
        os.utime(tree / "data/videos/1.npy", (1e9, 1e9))
        names = read_members(monkeypatch)
        assert convert(recording, tree, store).status == "already done"
        assert [name for name in names if name.startswith("data/")] == ["data/videos/1.npy"]

    def test_a_changed_file_makes_a_version_and_the_rest_is_copied(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert(recording, tree, store)
        changed = recording.trials[1].behavior + 1
        (tree / "data/behavior/1.npy").write_bytes(npy(changed))
        names = read_members(monkeypatch)
        report = convert(recording, tree, store)
        assert (report.status, report.n_trials_copied) == ("updated", 2)
        assert {name for name in names if name.startswith("data/")} == {
            f"data/{modality}/1.npy" for modality in recording.trials[1].arrays()
        } | {"data/behavior/1.npy"}
        stored = open_session(str(store), "A").behavior.sel(trial=1)[:, :20]
        np.testing.assert_array_equal(stored, changed[:, :20].astype(np.float32))
        assert convert(recording, tree, store).status == "already done"

    def test_a_trial_that_is_taken_away_makes_a_version(self, recording: Recording, tree: Path, store: Path) -> None:
        convert(recording, tree, store)
        (tree / "data/responses/2.npy").unlink()
        report = convert(recording, tree, store)
        assert (report.status, report.n_trials_copied) == ("updated", 2)
        assert "responses of 1 trial of live_test_bonus are not in the archive" in report.notes

    def test_archive_and_tree_take_turns_and_nothing_is_converted_twice(
        self, recording: Recording, tree: Path, store: Path, tmp_path: Path
    ) -> None:
        convert(recording, recording.write(tmp_path / "archive").parent, store)
        report = convert(recording, tree, store)
        assert (report.status, report.n_trials_copied, report.n_bytes_read) == ("updated", 3, 0)
        report = convert(recording, tmp_path / "archive", store)
        assert (report.status, report.n_trials_copied) == ("updated", 3)

    def test_an_interrupted_run_goes_on_with_the_archive_and_the_other_way_round(
        self, recording: Recording, tree: Path, store: Path, tmp_path: Path, published: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        sources = (tree, recording.write(tmp_path / "archive"))
        for number, (first, second) in enumerate([sources, sources[::-1], (tree, tree)]):
            own = tmp_path / f"store-{number}"
            with pytest.MonkeyPatch.context() as patch:
                read = SessionArchive.read_trial

                def fail(self: SessionArchive, modality: str, trial: int, read=read) -> np.ndarray:
                    if trial == 2:
                        raise KeyboardInterrupt
                    return read(self, modality, trial)

                patch.setattr(SessionArchive, "read_trial", fail)
                with pytest.raises(KeyboardInterrupt):
                    convert_session(recording.session, str(own), source=str(first), jobs=1)
            names = read_members(monkeypatch)
            assert convert(recording, second, own).n_trials_resumed == 2
            if first == second:
                assert {name.rpartition("/")[2] for name in names if name.startswith("data/")} == {"2.npy"}
            assert open_store(str(own)).digest("A") == published
            assert convert(recording, second, own).status == "already done"

    def test_a_file_that_changes_meanwhile_is_read_anew(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed = recording.trials[1].behavior + 1
        read, pending = SessionArchive.read_trial, ["once"]

        def write_first(self: SessionArchive, modality: str, trial: int) -> np.ndarray:
            if (modality, trial) == ("videos", 1) and pending:
                pending.pop()
                (tree / "data/behavior/1.npy").write_bytes(npy(changed))
            return read(self, modality, trial)

        monkeypatch.setattr(SessionArchive, "read_trial", write_first)
        convert(recording, tree, store)
        assert not pending
        stored = open_session(str(store), "A").behavior.sel(trial=1)[:, :20]
        np.testing.assert_array_equal(stored, changed[:, :20].astype(np.float32))

    def test_a_file_that_keeps_changing_ends_the_run(
        self, recording: Recording, tree: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = SessionArchive.read_trial

        def write_first(self: SessionArchive, modality: str, trial: int) -> np.ndarray:
            path = tree / f"data/{modality}/{trial}.npy"
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
            return read(self, modality, trial)

        monkeypatch.setattr(SessionArchive, "read_trial", write_first)
        with pytest.raises(SourceChangedError, match=r"data/\w+/\d\.npy: the archive changed while it was being read"):
            convert(recording, tree, store)

    def test_a_remote_tree(self, recording: Recording, tree: Path, store: Path, published: str) -> None:
        filesystem = fsspec.filesystem("memory")
        try:
            filesystem.put(str(tree), f"/unpacked/{tree.name}", recursive=True)
            for source in ("memory://unpacked", f"memory://unpacked/{tree.name}"):
                report = convert(recording, source, store)
                assert report.source == f"memory://unpacked/{tree.name}"
                assert report.status == ("converted" if source == "memory://unpacked" else "already done")
            assert open_store(str(store)).digest("A") == published
            assert choose_sessions(["all"], ["memory://unpacked"]) == (recording.session,)
            filesystem.rm(f"/unpacked/{tree.name}/data/responses/2.npy")
            assert convert(recording, "memory://unpacked", store).status == "updated"
        finally:
            filesystem.rm("/unpacked", recursive=True)

    def test_all_means_every_tree_there(self, recording: Recording, tree: Path) -> None:
        other = make_recording("F", ["train"])
        other.write_tree(tree.parent / "more")
        make_recording("G", ["train"]).write(tree.parent)
        (tree.parent / "notes").mkdir()
        chosen = choose_sessions(["all"], [str(tree.parent)])
        assert [session.alias for session in chosen] == ["A", "F", "G"]
        assert choose_sessions(["all"], [str(tree)]) == (recording.session,)

    def test_the_archive_comes_before_the_tree(self, recording: Recording, tree: Path, store: Path) -> None:
        path = recording.write(tree.parent)
        assert convert(recording, tree.parent, store).source == str(path)


class TestRefused:
    """What is wrong is told with the session, the place and what to do, and nothing is stored."""

    @pytest.fixture
    def tree(self, recording: Recording, tmp_path: Path) -> Path:
        return recording.write_tree(tmp_path / "source")

    def assert_refused(self, recording: Recording, source: Path, match: str) -> SensoriumError:
        store = source.parent / "store of what is refused"
        with pytest.raises(SensoriumError, match=match) as caught:
            convert(recording, source, store)
        assert not (store / recording.session.name).exists()
        assert recording.session.name in str(caught.value)
        assert caught.value.remedy
        return caught.value

    @pytest.mark.parametrize("modality", ["videos", "responses", "behavior", "pupil_center"])
    def test_half_of_a_session(self, recording: Recording, tree: Path, modality: str) -> None:
        shutil.rmtree(tree / "data" / modality)
        self.assert_refused(
            recording, tree, rf"not whole: there are no {modality}: found .*0 {modality}.*for each of 3 trials"
        )

    def test_folders_without_anything(self, recording: Recording, tree: Path) -> None:
        shutil.rmtree(tree / "data")
        (tree / "data").mkdir()
        self.assert_refused(recording, tree.parent, r"holds no trials.*data/videos/0\.npy; unpack the archive again")

    @pytest.mark.parametrize("name", ["videos", "behavior", "pupil_center"])
    def test_a_trial_that_lacks_a_file(self, recording: Recording, tree: Path, name: str) -> None:
        (tree / f"data/{name}/1.npy").unlink()
        error = self.assert_refused(recording, tree, rf"1 of 3 lack {name}: found no data/{name}/1\.npy")
        assert error.trial == 1

    def test_a_file_that_was_copied_by_half(self, recording: Recording, tree: Path) -> None:
        path = tree / "data/responses/1.npy"
        path.write_bytes(path.read_bytes()[:-8])
        error = self.assert_refused(
            recording, tree, r"data/responses/1\.npy: the array has another size than its header says"
        )
        assert (error.trial, error.path) == (1, str(path))

    def test_content_that_git_annex_did_not_fetch(self, recording: Recording, tree: Path) -> None:
        for trial in (0, 1):
            path = tree / f"data/videos/{trial}.npy"
            path.unlink()
            path.symlink_to(f"../../../.git/annex/objects/X/Y/MD5-s9--{trial}/MD5-s9--{trial}")
        match = (
            rf"not fetched with git-annex: found a link to MD5-s9--0, 9 bytes and 1 more; run `git annex get {tree}`"
        )
        assert self.assert_refused(recording, tree.parent, match).trial == 0

    def test_pointers_of_git_annex(self, recording: Recording, tree: Path) -> None:
        (tree / "data/responses/1.npy").write_text("/annex/objects/MD5-s9--1\n")
        error = self.assert_refused(recording, tree, rf"a pointer to MD5-s9--1, 9 bytes.*`git annex get {tree}`")
        assert error.trial == 1

    @pytest.mark.parametrize("name", ["data/videos/1.npy", "data/videos", "data", "meta/trials", "meta"])
    def test_links_that_lead_out(self, recording: Recording, tree: Path, name: str) -> None:
        outside = tree.parent / "outside"
        (tree / name).rename(outside)
        (tree / name).symlink_to(outside)
        self.assert_refused(
            recording, tree, rf"{tree / name}: a link leads out .*found a link to {outside}.*put there what"
        )

    def test_several_folders_that_fit(self, recording: Recording, tree: Path) -> None:
        tree.rename(tree.parent / "one")
        recording.write_tree(tree.parent).rename(tree.parent / "other")
        self.assert_refused(
            recording, tree.parent, "several folders could be the session's: found the folders one, other"
        )

    def test_another_session_s_folder(self, recording: Recording, tree: Path) -> None:
        name = make_recording("G").session.name
        other = tree.rename(tree.parent / name)
        for source in (other, other.parent):
            self.assert_refused(
                recording, source, f"neither .* nor its folder is there: found the folder {name}, expected"
            )

    @pytest.mark.parametrize("names", [("one", "other"), ("a/{}", "b/{}")])
    def test_an_archive_of_several_folders_that_fit(
        self, recording: Recording, tmp_path: Path, names: tuple[str, str]
    ) -> None:
        folders = [name.format(recording.session.name) for name in names]
        path = pack(tmp_path / "mine.zip", recording, lambda relative: f"{folders['meta' in relative]}/{relative}")
        self.assert_refused(
            recording, path, rf"several folders could be .*found the folders {folders[0]}, {folders[1]}"
        )


def test_content_that_git_annex_fetched_is_read_through_its_links(
    recording: Recording, published: str, tmp_path: Path
) -> None:
    tree = recording.write_tree(tmp_path / "repository")
    objects = tmp_path / "repository/.git/annex/objects"
    objects.mkdir(parents=True)
    for number, path in enumerate(sorted(tree.rglob("*.npy"))):
        key = objects / f"MD5-s9--{number}"
        path.rename(key)
        path.symlink_to(os.path.relpath(key, path.parent))
    convert(recording, tree.parent, tmp_path / "store")
    assert open_store(str(tmp_path / "store")).digest("A") == published


def test_links_to_files_below_are_followed(recording: Recording, published: str, tmp_path: Path) -> None:
    tree = recording.write_tree(tmp_path / "source")
    (tree / "pool").mkdir()
    (tree / "data/videos/1.npy").rename(tree / "pool/one")
    (tree / "data/videos/1.npy").symlink_to("../../pool/one")
    convert(recording, tree, tmp_path / "store")
    assert open_store(str(tmp_path / "store")).digest("A") == published


def test_a_session_s_folder_may_be_a_link(recording: Recording, published: str, tmp_path: Path) -> None:
    tree = recording.write_tree(tmp_path / "disk")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / tree.name).symlink_to(tree)
    convert(recording, tmp_path / "source", tmp_path / "store")
    assert open_store(str(tmp_path / "store")).digest("A") == published


def test_what_has_no_place_in_a_tree_is_noted(recording: Recording, tmp_path: Path) -> None:
    tree = recording.write_tree(tmp_path / "source")
    (tree / "README.md").write_text("mine")
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("")
    notes = convert(recording, tree, tmp_path / "store").notes
    assert "1 member of the archive has no place in a session: README.md" in notes
    (tree / "README.md").write_text("changed")
    assert convert(recording, tree, tmp_path / "store").status == "already done"


def test_trials_that_have_a_tier_and_no_file_are_noted(recording: Recording, tmp_path: Path) -> None:
    tree = recording.write_tree(tmp_path / "source")
    for modality in ("videos", "responses", "behavior", "pupil_center"):
        (tree / "data" / modality / "1.npy").unlink()
    assert "1 trial with a tier and without files: 1" in convert(recording, tree, tmp_path / "store").notes


def test_an_unpacked_folder_without_a_session_asked_for_is_its_name_s(recording: Recording, tmp_path: Path) -> None:
    with SessionArchive.open(str(recording.write_tree(tmp_path))) as archive:
        assert archive.name == recording.session.name
        assert archive.trial_ids() == [0, 1, 2]
    with pytest.raises(ArchiveError):
        SessionArchive.open(str(tmp_path))
