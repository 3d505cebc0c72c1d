"""Sources in a run's folder: what is kept is what was there, and nothing else is read."""

from __future__ import annotations

import pytest

from models.sources import ModelSources, find_changes, is_trusted, read_kept, trust_sources, write_sources
from sensorium_data.errors import RunError, StoreError

SOURCES = ModelSources({"net.py": b"import a.b", "a/b.py": b"x = 1\r\n", "a/__init__.py": b""})


def test_what_is_kept_is_read_back(tmp_path):
    write_sources(SOURCES, tmp_path)
    assert (tmp_path / "code/a/b.py").read_bytes() == b"x = 1\r\n"
    kept = read_kept(tmp_path, SOURCES.digests)
    assert kept.files == SOURCES.files
    assert kept.digest == SOURCES.digest


@pytest.mark.parametrize("link", ["code/a", "code"])
def test_no_link_out_of_the_run_is_followed(link, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = tmp_path / "run"
    (run / link).parent.mkdir(parents=True)
    (run / link).symlink_to(elsewhere)
    with pytest.raises(StoreError, match="a link leads out of the folder"):
        write_sources(SOURCES, run)
    assert not list(elsewhere.iterdir())


def test_damage_is_told(tmp_path):
    write_sources(SOURCES, tmp_path)
    (tmp_path / "code/a/b.py").write_bytes(b"x = 2")
    with pytest.raises(RunError, match=r"code/a/b.py: the code of the run was changed after training"):
        read_kept(tmp_path, SOURCES.digests)
    (tmp_path / "code/a/b.py").unlink()
    with pytest.raises(RunError, match=r"code/a/b.py: the code of the run is missing"):
        read_kept(tmp_path, SOURCES.digests)


@pytest.mark.parametrize("name", ["../net.py", "/etc/net.py", "a/../../net.py", "net.so", ""])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    write_sources(SOURCES, tmp_path / "run")
    (tmp_path / "net.py").write_text("")
    with pytest.raises(RunError, match="the run names no file of code"):
        read_kept(tmp_path / "run", {name: SOURCES.digests["a/__init__.py"]})


def test_too_much_is_not_read(tmp_path, monkeypatch):
    write_sources(SOURCES, tmp_path)
    monkeypatch.setattr("models.sources.keeping.MAX_CODE_SIZE_BYTES", 12)
    with pytest.raises(RunError, match="the run keeps too much code"):
        read_kept(tmp_path, SOURCES.digests)
    (tmp_path / "large.py").write_bytes(b"x" * 13)
    assert find_changes({"net.py": "0"}, {"net.py": str(tmp_path / "large.py")}) == []


def test_a_link_out_of_the_run_is_refused(tmp_path):
    (tmp_path / "run/code").mkdir(parents=True)
    (tmp_path / "net.py").write_bytes(b"")
    (tmp_path / "run/code/net.py").symlink_to(tmp_path / "net.py")
    with pytest.raises(RunError, match=r"cannot be read: a link leads out of the folder"):
        read_kept(tmp_path / "run", {"net.py": SOURCES.digests["a/__init__.py"]})


def test_changes_are_of_files_that_are_there(tmp_path):
    (tmp_path / "same.py").write_bytes(b"import a.b")
    (tmp_path / "other.py").write_bytes(b"x = 3")
    origins = {"net.py": str(tmp_path / "same.py"), "a/b.py": str(tmp_path / "other.py"), "a/__init__.py": "/nowhere"}
    assert find_changes(SOURCES.digests, origins) == [str(tmp_path / "other.py")]


def test_trust_is_in_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not is_trusted(SOURCES.digest)
    trust_sources(SOURCES)
    assert is_trusted(SOURCES.digest)
    assert not is_trusted(ModelSources({**SOURCES.files, "net.py": b"import a.b # changed"}).digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/below"))
    (tmp_path / "file").write_text("")
    trust_sources(SOURCES)  # Nowhere to write to: asked again, and no error.
    assert not is_trusted(SOURCES.digest)
