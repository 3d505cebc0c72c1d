"""A template database is copied whole or not at all, and only while it is what it was when it was made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from flows.lab.database_template import DatabaseTemplate
from sensorium_data.files import digest_file


def make_database(path: Path, *, used: bool = False) -> Path:
    """A database as a server makes it, in a few of its tables."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for table in ("alembic_version", "block_type", "flow_run", "configuration"):
            connection.execute(f"CREATE TABLE {table} (value TEXT)")
        for table in ("alembic_version", "block_type", *(["configuration"] if used else [])):
            connection.execute(f"INSERT INTO {table} VALUES ('one')")  # noqa: S608
    return path


@pytest.fixture
def template(tmp_path: Path) -> DatabaseTemplate:
    """A template that has been made."""
    template = DatabaseTemplate(tmp_path / "cache" / "prefect", "prefect-3.9.1-0123")
    assert template.save(make_database(tmp_path / "made.db"))
    return template


def file_of(template: DatabaseTemplate) -> Path:
    (path,) = template.folder.iterdir()
    return path


def read_tables(database: Path) -> dict[str, list[tuple[str]]]:
    with closing(sqlite3.connect(database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608


def test_a_copy_holds_what_the_database_held(template: DatabaseTemplate, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    copy = tmp_path / "home" / "prefect.db"
    assert template.install(copy)
    assert read_tables(copy) == read_tables(tmp_path / "made.db")
    assert [path.name for path in copy.parent.iterdir()] == ["prefect.db"]


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_what_is_left_of_a_database_is_not_joined_with_the_template(
    template: DatabaseTemplate, tmp_path: Path, ending: str
) -> None:
    copy = tmp_path / "prefect.db"
    Path(f"{copy}{ending}").write_bytes(b"mine")
    assert not template.install(copy)
    assert [path.read_bytes() for path in tmp_path.glob("prefect.db*")] == [b"mine"]


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [change_a_byte, cut, let_others_write, link])
def test_a_damaged_template_is_removed_and_another_is_made(
    template: DatabaseTemplate, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = file_of(template)
    damage(path)
    assert not template.install(tmp_path / "prefect.db")
    assert not (tmp_path / "prefect.db").exists()
    assert not path.is_symlink()
    assert not path.exists()
    assert f"{path}: the template database is damaged" in caplog.text
    assert template.save(tmp_path / "made.db")
    assert template.install(tmp_path / "prefect.db")


def test_a_database_that_was_used_becomes_no_template(tmp_path: Path) -> None:
    template = DatabaseTemplate(tmp_path / "cache", "prefect-3.9.1-0123")
    assert not template.save(make_database(tmp_path / "used.db", used=True))
    assert list(template.folder.iterdir()) == []


def test_a_template_with_somebodys_rows_is_not_taken(tmp_path: Path) -> None:
    template = DatabaseTemplate(tmp_path, "prefect-3.9.1-0123")
    planted = make_database(tmp_path / "used.db", used=True)
    planted.rename(tmp_path / f"{template.stem}-{digest_file(planted)[:32]}.db")
    assert not template.install(tmp_path / "prefect.db")


def test_another_version_of_prefect_has_another_template(template: DatabaseTemplate, tmp_path: Path) -> None:
    other = DatabaseTemplate(template.folder, "prefect-3.9.2-0123")
    assert not other.install(tmp_path / "prefect.db")
    assert file_of(template).exists()


def test_several_processes_make_and_copy_it_at_once(tmp_path: Path) -> None:
    template = DatabaseTemplate(tmp_path / "cache", "prefect-3.9.1-0123")
    made = make_database(tmp_path / "made.db")
    copy = tmp_path / "prefect.db"
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: template.save(made), range(8)))
        assert sum(pool.map(lambda _: template.install(copy), range(8))) == 1
    assert read_tables(copy) == read_tables(made)
    assert all(path.suffix == ".db" for path in template.folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_told_and_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o500)
    template = DatabaseTemplate(tmp_path / "cache", "prefect-3.9.1-0123")
    assert not template.save(tmp_path / "made.db")
    assert "no template database was made" in caplog.text


def test_a_cache_that_is_no_folder_is_told_and_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    template = DatabaseTemplate(tmp_path / "cache" / "prefect", "prefect-3.9.1-0123")
    assert not template.save(make_database(tmp_path / "made.db"))
    assert "no template database was made" in caplog.text
    assert not template.install(tmp_path / "prefect.db")
