"""Bad input ends with one line that helps, exit status 2 (1 for what is checked), and nothing half-made."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from fixtures.command_line import Outcome
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import find_session
from sensorium_data.store import open_store
from sensorium_data.testing import serve_directory

Command = Callable[..., Outcome]
F = find_session("F")


def visible(root: Path) -> list[str]:
    """Names of the published things in a folder: whatever is not hidden or partial."""
    if not root.exists():
        return []
    return sorted(p.name for p in root.iterdir() if not p.name.startswith(".") and not p.name.endswith(".partial"))


def assert_nothing_published(root: Path) -> None:
    assert [name for name in visible(root) if name.startswith("dynamic")] == []


@pytest.fixture
def broken_archives(archives: Path, tmp_path: Path) -> Path:
    """A folder with a copy of F's archive that a test may damage."""
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(archives / f"{F.name}.zip", folder)
    return folder


def test_missing_source_folder(sensorium: Command, tmp_path: Path) -> None:
    outcome = sensorium("ingest", "F", "--store", tmp_path / "store", "--source", tmp_path / "nowhere")
    outcome.assert_refused("nowhere", F.name)
    assert_nothing_published(tmp_path / "store")


def test_missing_store(sensorium: Command, tmp_path: Path) -> None:
    for arguments in (["inspect", tmp_path / "none"], ["train", "factorized3d-debug", "--store", tmp_path / "none"]):
        sensorium(*arguments).assert_refused(str(tmp_path / "none"))
    sensorium("verify", tmp_path / "none").assert_refused(str(tmp_path / "none"), "a run, or a submission")


def test_url_that_answers_404(sensorium: Command, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with serve_directory(tmp_path / "served") as server:
        outcome = sensorium("ingest", "F", "--store", tmp_path / "store", "--source", server.url)
    outcome.assert_refused("404", server.url)
    assert_nothing_published(tmp_path / "store")


@pytest.mark.parametrize("address", ["http://[::1", "http://host:99999/x", "http://host:abc/x", "http://me:a[b@host/x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "HERE"),
        ("verify", "HERE"),
        ("validate", "HERE", "--store", "HERE"),
        ("ingest", "F", "--store", "store", "--source", "HERE"),
        ("ingest", "F", "--store", "store", "--source", "HERE", "--mode", "download"),
        ("ingest", "F", "--store", "HERE", "--source", "nowhere"),
        ("predict", "HERE", "--store", "HERE", "--tier", "oracle", "--out", "out"),
        ("score", "HERE", "--store", "HERE"),
        ("train", "static2d-debug", "--store", "HERE"),
        ("clean", "HERE"),
    ],
    ids=" ".join,
)
def test_mistyped_address(
    sensorium: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    address: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = sensorium(*(address if word == "HERE" else word for word in arguments))
    outcome.assert_refused("this is no URL")
    assert not list(tmp_path.iterdir())


def test_unknown_user(sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sensorium("inspect", "~nobody-of-this-name/store").assert_refused("~nobody-of-this-name/store", "no such folder")


def test_web_page_instead_of_a_range(sensorium: Command, tmp_path: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/{F.name}.zip").respond_with_data(
        "<html>Are you a robot?</html>", content_type="text/html"
    )
    outcome = sensorium("ingest", "F", "--store", tmp_path / "store", "--source", httpserver.url_for("").rstrip("/"))
    outcome.assert_refused("web page")
    assert_nothing_published(tmp_path / "store")


def test_file_that_is_no_zip(sensorium: Command, tmp_path: Path) -> None:
    (tmp_path / f"{F.name}.zip").write_bytes(b"this is not a zip" * 1000)
    sensorium("ingest", "F", "--store", tmp_path / "store", "--source", tmp_path).assert_refused(f"{F.name}.zip")
    assert_nothing_published(tmp_path / "store")


def test_truncated_zip(sensorium: Command, tmp_path: Path, broken_archives: Path) -> None:
    archive = broken_archives / f"{F.name}.zip"
    with archive.open("r+b") as file:
        file.truncate(archive.stat().st_size // 2)
    sensorium("ingest", "F", "--store", tmp_path / "store", "--source", broken_archives).assert_refused("truncated")
    assert_nothing_published(tmp_path / "store")


def test_flipped_bit_in_a_member(sensorium: Command, tmp_path: Path, broken_archives: Path) -> None:
    archive = broken_archives / f"{F.name}.zip"
    with zipfile.ZipFile(archive) as zipped:
        member = max((m for m in zipped.infolist() if "/data/responses/" in m.filename), key=lambda m: m.compress_size)
    content = bytearray(archive.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0x10
    archive.write_bytes(content)
    outcome = sensorium("ingest", "F", "--store", tmp_path / "store", "--source", broken_archives)
    trial = Path(member.filename).stem
    outcome.assert_refused(f"trial {trial},", F.name, "CRC")
    assert_nothing_published(tmp_path / "store")


def test_unknown_session(sensorium: Command, tmp_path: Path) -> None:
    sensorium("ingest", "Z", "--store", tmp_path / "store").assert_refused("'Z'", "A to J")
    near = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea21"
    sensorium("ingest", near, "--store", tmp_path / "store").assert_refused(F.name)
    assert not (tmp_path / "store").exists()


def test_store_of_another_schema_version(sensorium: Command, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    for metadata in (copy / F.name / "zarr.json", copy / "zarr.json"):
        text = metadata.read_text()
        assert f'"schema_version": {SCHEMA_VERSION}' in text
        metadata.write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 999'))
    sensorium("inspect", copy, "F").assert_refused("999", "schema")
    sensorium("train", "factorized3d-debug", "--store", copy, "--sessions", "F").assert_refused("999", "schema")


def test_unfinished_store(sensorium: Command, archives: Path, tmp_path: Path, broken_archives: Path) -> None:
    test_flipped_bit_in_a_member(sensorium, tmp_path, broken_archives)
    sensorium("inspect", tmp_path / "store", "F").assert_refused("F", "ingest")
    sensorium("verify", tmp_path / "store", "F").assert_refused("F", "ingest", status=1)


def test_damaged_store_is_found_by_verify(sensorium: Command, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    assert sensorium("verify", copy).status == 0
    chunk = next(path for path in sorted((copy / F.name / "responses" / "c").rglob("*")) if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    outcome = sensorium("verify", copy)
    assert outcome.status == 1
    assert str(chunk.relative_to(copy / F.name)) in outcome.err
    chunk.unlink()
    outcome = sensorium("verify", copy, "F")
    assert outcome.status == 1
    assert "missing" in outcome.err


def test_unknown_preset_and_settings(sensorium: Command, store: Path, tmp_path: Path) -> None:
    base = ["--store", store, "--runs", tmp_path / "runs"]
    sensorium("train", "factorised3d", *base).assert_refused("factorized3d")
    sensorium("train", "factorized3d-debug", *base, "--set", "learning_rat=1").assert_refused("learning_rate")
    sensorium("train", "factorized3d-debug", *base, "--set", "learning_rate=fast").assert_refused("fast")
    sensorium("train", "factorized3d-debug", *base, "--set", "learning_rate").assert_refused("key=value")
    assert not (tmp_path / "runs").exists()


def test_missing_run_and_predictions(sensorium: Command, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sensorium("predict", tmp_path / "norun", "--store", store, "--tier", "oracle", "--out", out).assert_refused("norun")
    sensorium("predict", tmp_path, "--store", store, "--tier", "oracl", "--out", out).assert_refused(
        "did you mean oracle"
    )
    sensorium("score", tmp_path / "nothing", "--store", store).assert_refused("nothing")
    sensorium("submit", tmp_path / "nothing", "--store", store, "--track", "main", "--out", out).assert_refused(
        "nothing"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["ingest"], "--store"),
        (["ingest", "--store", "x"], "session"),
        (["ingest", "F", "--store", "x", "--jobs", "0"], "--jobs"),
        (["ingest", "F", "--store", "x", "--jobs", "many"], "many"),
        (["ingst"], "ingest"),
        (["train", "factorized3d", "--stor", "x"], "--stor"),
        (["submit", "x", "--store", "y", "--track", "third"], "third"),
        (["validate", "--store", "x"], "file"),
    ],
)
def test_wrong_usage(sensorium: Command, arguments: list[str], word: str) -> None:
    sensorium(*arguments).assert_refused(word)


def test_folders_that_cannot_be_made(sensorium: Command, store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "folder"
    sensorium("simulate", below, "--sessions", "F", "--trials", "20", "--neurons", "2").assert_refused(str(below))
    sensorium("train", "factorized3d-debug", "--store", store, "--runs", below).assert_refused(str(below))
    sensorium("ingest", "F", "--store", below, "--source", store.parent).assert_refused(F.name)


def test_server_that_does_not_answer(sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:9/api", "nonsense"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        sensorium("ingest", "F", "--store", tmp_path / "store").assert_refused(url, "PREFECT_API_URL")


def test_json_is_json(sensorium: Command, store: Path) -> None:
    sessions = json.loads(sensorium("inspect", store, "--json").out)
    assert {row["session"] for row in sessions} >= {"F"} or {row["alias"] for row in sessions} >= {"F"}
    verified = json.loads(sensorium("verify", store, "--json").out)
    # The store's own files come first.
    assert [(row["session"] != "", row["problems"]) for row in verified] == [(False, []), (True, []), (True, [])]


def test_what_was_done_is_told_though_another_session_is_damaged(
    sensorium: Command, archives: Path, store: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    others = [folder for folder in sorted(copy.glob("dynamic*")) if folder.name != F.name]
    for folder in (copy / F.name, others[0]):
        (folder / "zarr.json").unlink()
    outcome = sensorium("ingest", "F", "--store", copy, "--source", archives, "--repair")
    assert outcome.status == 2
    assert "updated" in outcome.out
    assert f"{others[0].name}/zarr.json: the store is damaged" in outcome.err
    assert open_store(str(copy)).group("F") == f"{F.name}.v2"
