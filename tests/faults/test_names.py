"""Names and links that others wrote: nothing outside a store, a run or a folder of predictions is read or changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.session_stores import write_session_store
from fixtures.stores import read_files
from models.runs.checkpoints import Checkpoints
from sensorium_data.errors import PredictionsError, RunError, SensoriumError, StoreError
from sensorium_data.files import LocalObjects, Objects, RemoteObjects, open_objects
from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.movies import link_movies
from sensorium_data.names import find_name_problem
from sensorium_data.predictions import create_predictions, from_folder
from sensorium_data.store import exclusive_access, open_session, open_store
from sensorium_data.testing.recordings import make_recording

HOSTILE = ["../x", "..", "a/../../x", "/etc/x", "a/..", "..\\x", "\\x", "C:\\x", "C:x", "", ".", "a\0b", "a::file:///x"]
NAME = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"
OTHER = "dynamic29513-3-5-Video-9b4f6a1a067fe51e15306b9628efea20"
SOUND = ["a", "a/b.c/0", ".partial/x.lock", "videos/c/0/0/0/0", "..a", "a..b/c", "a b", "é", "ab:c", f"{NAME}.v2"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store beside somebody's work."""
    folder = tmp_path_factory.mktemp("template")
    write_session_store(folder / "store", n_neurons=2)
    (folder / "thesis").mkdir()
    (folder / "thesis/chapter1.txt").write_text("years of work")
    return folder


@pytest.fixture
def lab(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "lab")
    return tmp_path / "lab"


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", [*HOSTILE, 7, None, "\ud800"])
def test_hostile_names_are_known(name: object) -> None:
    assert find_name_problem(name) is not None


@pytest.mark.parametrize("name", SOUND)
def test_names_that_pass_stay_below_their_folder(name: str) -> None:
    assert find_name_problem(name) is None
    assert os.path.normpath(os.path.join("/root", name)).startswith("/root/")


@pytest.mark.parametrize("key", HOSTILE)
@pytest.mark.parametrize("root", ["{}/store", "memory://names/store"])
def test_no_object_lies_outside_its_root(root: str, key: str, tmp_path: Path) -> None:
    objects: Objects = open_objects(root.format(tmp_path))
    for use in (
        objects.child,
        objects.read,
        objects.size,
        objects.delete,
        lambda key: objects.write(key, b"1"),
        lambda key: objects.write_durably(key, b"1"),
    ):
        with pytest.raises(StoreError, match="leads out of the folder"):
            use(key)
    assert not list(tmp_path.iterdir())


VERSIONS: dict[str, object] = {
    "a folder beside the store": {NAME: "../../thesis"},
    "an absolute path": {NAME: "/etc"},
    "a folder below the store": {NAME: f"{NAME}/videos"},
    "another session": {NAME: OTHER},
    "another session's version": {NAME: f"{OTHER}.v2"},
    "a version with a path": {NAME: f"../{NAME}.v2"},
    "the first version": {NAME: f"{NAME}.v1"},
    "a version of many digits": {NAME: f"{NAME}.v{'9' * 5000}"},
    "digits of another script": {NAME: f"{NAME}.v２"},
    "a line break": {NAME: f"{NAME}.v2\n"},
    "the store itself": {NAME: "."},
    "no name": {NAME: ""},
    "a number": {NAME: 2},
    "a session that cannot be": {"../thesis": f"{NAME}.v2"},
    "an alias": {"F": f"{NAME}.v2"},
    "a list": [NAME],
}


@pytest.mark.parametrize("content", VERSIONS.values(), ids=VERSIONS.keys())
def test_versions_name_versions_of_the_session_alone(content: object, lab: Path) -> None:
    (lab / "store/versions.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"store/versions\.json: the store is damaged.*`sensorium ingest .*--repair`"):
        open_session(lab / "store", NAME)


def test_ingest_deletes_nothing_outside_the_store(lab: Path) -> None:
    recording = make_recording("F", ["train", "oracle"])
    recording.write(lab / "archives")
    before = read_files(lab)
    for group in ("../../thesis", str(lab / "thesis"), OTHER):
        (lab / "store/versions.json").write_text(json.dumps({NAME: group}))
        before["store/versions.json"] = (lab / "store/versions.json").read_bytes()
        for repairs in (False, True):
            with pytest.raises(StoreError, match=r"versions\.json"):
                convert_session(recording.session, str(lab / "store"), source=str(lab / "archives"), repairs=repairs)
            assert read_files(lab) == before


def test_unfinished_work_is_not_kept_behind_a_link(lab: Path) -> None:
    recording = make_recording("F", ["train", "oracle"])
    recording.write(lab / "archives")
    (lab / "thesis" / NAME).mkdir()
    (lab / "thesis" / NAME / "chapter2.txt").write_text("more of it")
    (lab / "new/.partial").mkdir(parents=True)
    before = read_files(lab)
    for link, target in ((f"new/.partial/{NAME}", f"thesis/{NAME}"), ("new/.partial", "thesis")):
        shutil.rmtree(lab / "new/.partial")
        (lab / link).parent.mkdir(exist_ok=True)
        (lab / link).symlink_to(lab / target)
        with pytest.raises(StoreError, match=r"leads out of the folder|cannot be"):
            convert_session(recording.session, str(lab / "new"), source=str(lab / "archives"))
        assert read_files(lab) == before
        (lab / link).unlink()
        (lab / "new/.partial").mkdir(exist_ok=True)


def damage_ledger(key: str, digest: str | None = None) -> Callable[[Path], None]:
    def change(content: dict) -> None:
        size, sound, crc32 = next(iter(content["objects"].values()))
        content["objects"][key] = [size, digest or sound, crc32]

    return lambda lab: rewrite(lab / "store" / NAME / "ledger.json", change)


def replace_by_link(name: str) -> Callable[[Path], None]:
    def replace(lab: Path) -> None:
        (lab / "store" / name).rename(lab / "elsewhere")
        (lab / "store" / name).symlink_to(lab / "elsewhere")

    return replace


def replace_by_pipe(name: str) -> Callable[[Path], None]:
    def replace(lab: Path) -> None:
        (lab / "store" / name).unlink()
        os.mkfifo(lab / "store" / name)

    return replace


def replace_by_device(name: str) -> Callable[[Path], None]:
    def replace(lab: Path) -> None:
        (lab / "store" / name).unlink()
        (lab / "store" / name).symlink_to("/dev/zero")

    return replace


STORES = {
    "a ledger's name that leads out": (damage_ledger("../../../thesis/chapter1.txt"), "the ledger is damaged"),
    "a ledger's absolute name": (damage_ledger("/etc/passwd"), "the ledger is damaged"),
    "a ledger's digest that is a path": (damage_ledger("x", "../../thesis"), "the ledger is damaged"),
    "a session's folder elsewhere": (replace_by_link(NAME), "leads out of the folder"),
    "metadata elsewhere": (replace_by_link(f"{NAME}/zarr.json"), "leads out of the folder"),
    "a ledger elsewhere": (replace_by_link(f"{NAME}/ledger.json"), "leads out of the folder"),
    "an array elsewhere": (replace_by_link(f"{NAME}/tier/zarr.json"), "leads out of the folder"),
    "metadata as a named pipe": (replace_by_pipe(f"{NAME}/zarr.json"), r"a named pipe, not a file|not in the store"),
    "a ledger as a named pipe": (replace_by_pipe(f"{NAME}/ledger.json"), "a named pipe, not a file"),
    "an array as a named pipe": (replace_by_pipe(f"{NAME}/tier/zarr.json"), "a named pipe, not a file"),
    "a ledger as a device": (replace_by_device(f"{NAME}/ledger.json"), "leads out of the folder"),
    "versions as a named pipe": (replace_by_pipe("versions.json"), "a named pipe, not a file"),
    "movies as a named pipe": (replace_by_pipe("movies.json"), "a named pipe, not a file"),
}


@pytest.mark.parametrize(("damage", "problem"), STORES.values(), ids=STORES.keys())
def test_a_store_is_read_in_its_own_folder_and_from_files(
    damage: Callable[[Path], None], problem: str, lab: Path
) -> None:
    for name in ("versions.json", "movies.json"):
        (lab / "store" / name).write_text('{"version": 1, "sessions": {}}' if name == "movies.json" else "{}")
    damage(lab)
    with pytest.raises(StoreError, match=problem):
        open_session(lab / "store", NAME)
    assert (lab / "thesis/chapter1.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["../thesis", "F", "", 7])
def test_the_root_and_the_links_name_sessions_in_full(name: object, lab: Path) -> None:
    rewrite(lab / "store/zarr.json", lambda content: content["attributes"].update(sessions=[name]))
    with pytest.raises(StoreError, match="no session's full name"):
        _ = open_store(lab / "store").listed
    (lab / "store/movies.json").write_text(
        json.dumps({"version": 1, "sessions": {str(name): {"digest": "", "ids": {}}}})
    )
    with pytest.raises(StoreError, match="no session's full name"):
        _ = open_store(lab / "store").links


def test_a_lock_is_made_in_the_store_alone(lab: Path) -> None:
    (lab / "store/.partial").symlink_to(lab / "thesis")
    with pytest.raises(StoreError, match="leads out"), exclusive_access(LocalObjects(lab / "store"), "root"):
        pass
    assert os.listdir(lab / "thesis") == ["chapter1.txt"]


def test_objects_below_a_link_are_neither_written_nor_deleted(lab: Path) -> None:
    (lab / "store/out").symlink_to(lab / "thesis")
    objects = LocalObjects(lab / "store")
    for use in (
        lambda: objects.write("out/chapter1.txt", b""),
        lambda: objects.delete("out/chapter1.txt"),
        lambda: objects.read("out/chapter1.txt"),
        lambda: objects.child("out").delete("chapter1.txt"),
        lambda: objects.child("out/below").delete_all(),
        objects.child("out").delete_all,
    ):
        with pytest.raises(StoreError):
            use()
    assert read_files(lab / "thesis") == {"chapter1.txt": b"years of work"}
    # A link is deleted itself; a store may be reached by one, and may hold links to its own files.
    objects.delete("out")
    (lab / "link").symlink_to(lab / "store")
    (lab / "store/again").symlink_to("zarr.json")
    assert LocalObjects(lab / "link").read("again") == (lab / "store/zarr.json").read_bytes()
    assert LocalObjects(lab / "link").size("again") == (lab / "store/zarr.json").stat().st_size


def test_folders_that_are_worked_in_are_no_links(lab: Path) -> None:
    (lab / "thesis/zarr.json").write_text("{}")
    before = read_files(lab / "thesis")
    for name in ("predictions.partial", "checkpoints"):
        (lab / name).symlink_to(lab / "thesis")
    predictions = create_predictions(
        str(lab / "predictions"),
        store=lab / "store",
        sessions=["F"],
        tiers=["oracle"],
        response_units="raw",
    )
    with pytest.raises(SensoriumError, match=r"found a link to .*thesis"), predictions:
        pass
    with pytest.raises(RunError, match=r"found a link to .*thesis"):
        Checkpoints(lab / "checkpoints", identity="", n_kept=1)
    assert read_files(lab / "thesis") == before


def test_an_array_of_predictions_that_is_a_named_pipe_is_not_waited_for(lab: Path) -> None:
    (lab / "mine/F").mkdir(parents=True)
    for trial in (3, 4, 7, 9, 12):
        os.mkfifo(lab / f"mine/F/{trial}.npy")
    with pytest.raises(PredictionsError, match="a named pipe, not a file"):
        from_folder(str(lab / "out"), str(lab / "store"), lab / "mine", response_units="raw")


def test_verify_and_link_name_what_leads_out(lab: Path) -> None:
    damage_ledger("../../thesis/chapter1.txt")(lab)
    for use in (lambda: verify_session(str(lab / "store"), "F"), lambda: link_movies(lab / "store")):
        with pytest.raises(StoreError, match="the ledger is damaged"):
            use()


def test_remote_children_stay_below_their_root() -> None:
    objects = open_objects("memory://names/store")
    assert isinstance(objects, RemoteObjects)
    assert objects.child(f"{NAME}.v2").url == f"memory://names/store/{NAME}.v2"
