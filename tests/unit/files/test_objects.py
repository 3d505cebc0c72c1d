from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, RemoteObjects, RetryPolicy, open_objects
from sensorium_data.store import exclusive_access
from sensorium_data.testing import serve_directory
from sensorium_data.testing.faults import AnswerStatus


@pytest.fixture(params=["local", "file", "url", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return open_objects(
        {"local": f"{tmp_path}/s", "file": f"file://{tmp_path}/s", "url": f"local://{tmp_path}/s"}.get(
            request.param, f"memory://{tmp_path}"
        )
    )


def test_what_is_written_is_read_sized_and_listed(objects: Objects) -> None:
    objects.write("b/c/0", b"123")
    objects.write("a", memoryview(b"45"))
    objects.write("a", b"4567")
    assert objects.read("b/c/0") == b"123"
    assert (objects.size("a"), objects.exists("a")) == (4, True)
    assert objects.digest("a") == hashlib.sha256(b"4567").hexdigest()
    assert objects.keys() == ["a", "b/c/0"]
    assert objects.child("b").read("c/0") == b"123"
    assert objects.child("b").keys() == ["c/0"]
    assert objects.locate("a").endswith("/a")


def test_sizes_and_times_are_listed(objects: Objects) -> None:
    objects.write("b/c/0", b"123")
    objects.write("a", b"4567")
    statuses = objects.statuses()
    assert statuses is not None
    assert {key: status.size_bytes for key, status in statuses.items()} == {"a": 4, "b/c/0": 3}
    # Of this century, in seconds.
    assert all(946684800 < (status.modified_s or 0) < 4102444800 for status in statuses.values())
    assert objects.child("nowhere").statuses() == {}


def test_what_is_not_there_is_said_so(objects: Objects) -> None:
    objects.write("a", b"1")
    for key in ("b", "a/b"):
        for read in (objects.read, objects.digest):
            with pytest.raises(FileNotFoundError):
                read(key)
        assert objects.size(key) is None
        assert not objects.exists(key)
        objects.delete("b")
    assert objects.child("nowhere").keys() == []
    objects.child("nowhere").delete_all()


def test_what_is_deleted_is_gone(objects: Objects) -> None:
    for key in ("a", "b/c", "b/d"):
        objects.write(key, b"1")
    objects.delete("a")
    objects.child("b").delete_all()
    assert objects.keys() == []


def test_a_path_object_is_a_local_root(tmp_path: Path) -> None:
    assert isinstance(open_objects(tmp_path), LocalObjects)


def test_http_is_read_and_cannot_be_listed_or_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with serve_directory(tmp_path) as server:
        objects = open_objects(server.url)
        assert isinstance(objects, RemoteObjects)
        assert objects.read("a") == b"123"
        assert objects.size("a") == 3
        assert objects.keys() is None
        with pytest.raises(FileNotFoundError):
            objects.read("b")
        assert objects.size("b") is None
        with pytest.raises(StoreError, match="cannot be written"):
            objects.write("b", b"1")


def test_a_servers_refusal_is_a_store_error_that_names_the_object(tmp_path: Path) -> None:
    with (
        serve_directory(tmp_path, faults=[AnswerStatus(500)]) as server,
        pytest.raises(StoreError, match=rf"{server.url}/a: cannot be read"),
    ):
        open_objects(server.url, RetryPolicy(n_attempts=2, backoff_s=0.0)).read("a")


def test_a_local_failure_is_a_store_error_that_names_the_object(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"folder: cannot be read: found a folder, not a file"):
        LocalObjects(tmp_path).read("folder")
    with pytest.raises(StoreError, match=r"cannot be written"):
        LocalObjects(tmp_path).write("folder", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("root", ["store", "./store", ".", "linked"])
@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("leads_out", [False, True])
def test_a_link_on_the_way_is_followed_as_far_as_it_stays_inside(
    root: str, depth: int, leads_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "store"
    top.mkdir()
    (tmp_path / "linked").symlink_to(top)
    monkeypatch.chdir(top if root == "." else tmp_path)
    parts = ["a", "b", "c", "object"]
    target = tmp_path / "thesis" if leads_out else top / "elsewhere"
    target.joinpath(*parts[depth:]).parent.mkdir(parents=True, exist_ok=True)
    target.joinpath(*parts[depth:]).write_bytes(b"there")
    link = top.joinpath(*parts[: depth + 1])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target / parts[depth])
    objects = LocalObjects(Path(root))
    key = "/".join(parts)
    if leads_out:
        with pytest.raises(StoreError, match="a link leads out of the folder"):
            objects.read(key)
        with pytest.raises(StoreError, match="a link leads out of the folder"):
            objects.child("a/b").read("c/object")
    else:
        assert objects.read(key) == objects.child("a/b").read("c/object") == b"there"
    if depth == 3:
        # A link in the object's own place is replaced itself.
        objects.write(key, b"here")
        assert objects.read(key) == b"here"
    elif leads_out:
        with pytest.raises(StoreError, match="a link leads out of the folder"):
            objects.write(key, b"here")
        with pytest.raises(StoreError, match="a link leads out of the folder"):
            objects.delete(key)
    assert target.joinpath(*parts[depth:]).read_bytes() == b"there"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("link", "cannot be read: found a link that leads to itself, not a file; put the file there, or remove"),
        ("nothing", "cannot be read: found a link that leads to nothing, not a file"),
        ("../nothing", "a link leads out of the folder: found .*/nothing, expected a place below"),
        ("folder", "cannot be read: found a folder, not a file"),
    ],
)
def test_a_link_that_leads_to_no_file_is_an_error_and_no_missing_object(
    target: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "s" / "folder").mkdir(parents=True)
    (tmp_path / "s" / "link").symlink_to(target)
    objects = LocalObjects(tmp_path / "s")
    uses = (
        objects.read,
        objects.size,
        objects.exists,
        objects.digest,
        lambda key: objects.read_into(key, memoryview(b"")),
    )
    for use in uses:
        with pytest.raises(StoreError, match=f"link: {words}"):
            use("link")
    # What is written replaces the link, and not what it leads to.
    objects.write("link", b"1")
    assert objects.read("link") == b"1"
    assert not (tmp_path / "nothing").exists()


def test_a_lock_is_held_by_one_and_dies_with_its_process(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from sensorium_data.files import LocalObjects\n"
        "from sensorium_data.store.publishing import exclusive_access\n"
        f"with exclusive_access(LocalObjects({str(tmp_path)!r}), 'F'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    waited: list[tuple[str, int, int]] = []
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with exclusive_access(LocalObjects(tmp_path), "A"):
            pass  # Another name is another lock.

        def kill(label: str, n_done: int, n_total: int, **more: object) -> None:
            waited.append((label, n_done, n_total))
            holder.kill()

        with exclusive_access(LocalObjects(tmp_path), "F", waiting="wait for F", progress=kill):
            assert waited == [("wait for F", 0, 1), ("wait for F", 1, 1)]
    assert not (tmp_path / ".partial").exists()


def test_a_lock_whose_folder_can_never_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "farther")
    (tmp_path / "file").touch()
    for root in ("dangling", "file"):
        with (
            pytest.raises(StoreError, match="cannot be locked for writing"),
            exclusive_access(LocalObjects(tmp_path / root), "F"),
        ):
            pass


def test_files_go_to_remote_folders_that_are_not_there_yet_and_back(tmp_path: Path) -> None:
    remote = RemoteObjects(f"local://{tmp_path}/server")
    (tmp_path / "sent").write_bytes(b"content")
    remote.upload(tmp_path / "sent", "a/b/sent")
    remote.write("c/d/written", b"other")
    assert remote.keys() == ["a/b/sent", "c/d/written"]
    remote.download("a/b/sent", tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        remote.download("nothing", tmp_path / "nothing")
    with pytest.raises(StoreError, match="server/a/b/sent/x: cannot be written"):
        remote.upload(tmp_path / "sent", "a/b/sent/x")


@pytest.mark.parametrize("url", ["sftp://me:secret@host/store", "webdav://host/store", "nonsense://x", "s3::x://a"])
def test_urls_that_are_not_supported_say_what_is(url: str) -> None:
    with pytest.raises(
        StoreError, match=r"not supported: found .*://, expected a path, a URL of s3://.*; mount"
    ) as told:
        open_objects(url)
    assert "secret" not in str(told.value)
