"""An empty database of Prefect's in the user's cache: a copy is there at once, while the migrations take seconds."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.files import cache_folder, digest_file, make_folder, read_regular, sync_path

__all__ = ["DatabaseTemplate", "find_template"]

_logger = logging.getLogger(__name__)

# What a server writes into a new database: its version and the kinds of blocks. A table of any other name is empty.
_FILLED = {"alembic_version", "block_type", "block_schema", "block_schema_reference"}
# What SQLite would take for the rest of a database that it finds beside them.
_COMPANIONS = ("-wal", "-shm", "-journal")
_N_HEX = 32


@dataclass(frozen=True)
class DatabaseTemplate:
    """The template for one version of Prefect.

    Its file's name ends with the digest of what is in it, so damage is noticed.

    Attributes
    ----------
    folder : Path
        Where it is kept; need not exist.
    stem : str
        How its file's name begins: Prefect's version, and the digest of the migrations.
    """

    folder: Path
    stem: str

    def install(self, database: Path) -> bool:
        """Copy the template to where there is no database, and return whether that was done.

        It is not done if there is no sound template, or anything of a database is there. The copy appears whole or not
        at all, and replaces nothing. A damaged template is removed. Files that cannot be read or written are told of in
        the log.
        """
        try:
            return not _exists(database) and self._install(database)
        except (OSError, sqlite3.Error) as error:
            self._tell("no database was copied", error)
            return False

    def save(self, database: Path) -> bool:
        """Make a template from a database that nobody has used, and return whether that was done.

        It is not done if there is something in the database. Several processes may do it at once. Files that cannot be
        read or written are told of in the log.
        """
        try:
            return self._save(database)
        except (OSError, sqlite3.Error) as error:
            self._tell("no template database was made", error)
            return False

    def _install(self, database: Path) -> bool:
        for path in sorted(self.folder.glob(f"{self.stem}-*.db")):
            if _is_sound(path):
                return _copy(path, database)
            _logger.warning("%s: the template database is damaged, and is removed", path)
            path.unlink()
        return False

    def _save(self, database: Path) -> bool:
        make_folder(self.folder)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".making-") as scratch:
            made = Path(scratch, "template.db")
            with contextlib.closing(sqlite3.connect(database)) as connection:
                # As of one moment, whatever the server does meanwhile, and in one file.
                connection.execute("VACUUM INTO ?", (str(made),))
            if not _is_unused(made):
                return False
            sync_path(made)
            made.replace(self.folder / f"{self.stem}-{_digest(made)}.db")
            return True

    def _tell(self, what: str, error: Exception) -> None:
        """Write a line into the server's log: a start without the template takes seconds longer, and is no failure."""
        _logger.warning("%s: %s: %s", self.folder, what, error)


def find_template(folder: Path | None = None) -> DatabaseTemplate:
    """Return the template for the installed Prefect; it need not exist yet. Imports Prefect.

    Parameters
    ----------
    folder : Path, optional
        Where templates are kept; ``sensorium/prefect`` in the user's cache if not given.
    """
    import prefect
    import prefect.server.database

    migrations = Path(prefect.server.database.__file__).parent / "_migrations" / "versions" / "sqlite"
    digest = hashlib.sha256()
    for path in sorted(migrations.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return DatabaseTemplate(
        cache_folder("prefect") if folder is None else folder,
        f"prefect-{prefect.__version__}-{digest.hexdigest()[:_N_HEX]}",
    )


def _exists(database: Path) -> bool:
    """Whether anything of a database is there, a link that leads nowhere too."""
    return any(os.path.lexists(f"{database}{ending}") for ending in ("", *_COMPANIONS))


def _is_sound(path: Path) -> bool:
    """Whether a template is what it was when it was made, by this user, and nobody else can have changed it."""
    status = os.lstat(path)
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and path.stem.endswith(f"-{_digest(path)}")
        and _is_unused(path)
    )


def _digest(path: Path) -> str:
    return digest_file(path)[:_N_HEX]


def _is_unused(database: Path) -> bool:
    """Whether a database has been migrated and holds nothing of anybody's."""
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as found:
        tables = {name for (name,) in found.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        filled = {name for name in tables if found.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()}  # noqa: S608
    return "alembic_version" in filled and filled <= _FILLED


def _copy(template: Path, database: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}-") as scratch:
        copy = Path(scratch, database.name)
        # The mode of SQLite's own files.
        with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(read_regular(template))
        sync_path(copy)
        # A link and no renaming: another server may have made the database meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(copy, database)
            return True
    return False
