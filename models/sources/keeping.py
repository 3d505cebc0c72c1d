"""A model's sources in the folder of a run, and whose sources are run without asking.

A run's folder may come from anywhere. Its code runs if it is, byte for byte, what this user has trained on this
machine, or if the user says that it may.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from models.sources.sources import ModelSources
from sensorium_data.errors import RunError, StoreError
from sensorium_data.files import (
    LocalObjects,
    cache_folder,
    digest_bytes,
    read_regular,
)
from sensorium_data.limits import MAX_CODE_FILES, MAX_CODE_SIZE_BYTES
from sensorium_data.names import find_name_problem

__all__ = ["CODE_FOLDER", "find_changes", "is_trusted", "read_kept", "trust_sources", "write_sources"]

#: In a run's folder.
CODE_FOLDER = "code"

_RESTORE = "restore it, or remove the run and train again"


def write_sources(sources: ModelSources, run: Path) -> None:
    """Write sources into the folder ``code`` of a run; what else lies there stays, and nobody imports it.

    Raises
    ------
    RunError
        If somebody has changed a file there.
    StoreError
        If a link leads out of the run, or the disk does not take them.
    """
    folder = LocalObjects(run)
    for name, content in sources.files.items():
        key = f"{CODE_FOLDER}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if folder.read(key) != content:
                raise RunError(
                    "the code that the unfinished run keeps was changed",
                    path=folder.locate(key),
                    remedy="move the file to another place: the code that is trained is written there again",
                )
        folder.write(key, content)


def read_kept(run: Path, code: Mapping[str, str]) -> ModelSources:
    """Return the sources that a run keeps; nothing is run.

    Parameters
    ----------
    run : Path
        Its folder.
    code : mapping of str to str
        Digest of each file, as the run's config has it.

    Raises
    ------
    RunError
        If a file is missing or was changed, or its name leads out of the run.
    """
    if len(code) > MAX_CODE_FILES:
        raise RunError(
            "the run names too many files of code",
            path=run / "config.json",
            found=len(code),
            expected=f"up to {MAX_CODE_FILES}",
            remedy=_RESTORE,
        )
    files = LocalObjects(run)
    contents: dict[str, bytes] = {}
    origins: dict[str, str] = {}
    for name, digest in code.items():
        problem = find_name_problem(name) or (None if name.endswith(".py") else "it is no Python file")
        if problem is not None:
            raise RunError(
                "the run names no file of code",
                path=run / "config.json",
                found=f"{name!r}: {problem}",
                expected="relative paths of Python files",
                remedy=_RESTORE,
            )
        path = run / CODE_FOLDER / name
        size_bytes = sum(map(len, contents.values())) + _measure(path)
        if size_bytes > MAX_CODE_SIZE_BYTES:
            raise RunError(
                "the run keeps too much code",
                path=path,
                found=f"{size_bytes / 1e6:.1f} MB or more",
                expected=f"up to {MAX_CODE_SIZE_BYTES / 1e6:.0f} MB",
            )
        try:
            contents[name] = files.read(f"{CODE_FOLDER}/{name}")
        except FileNotFoundError as error:
            raise RunError("the code of the run is missing", path=path, remedy=_RESTORE) from error
        except StoreError as error:
            raise RunError(
                f"the code of the run cannot be read: {error.problem}", path=path, found=error.found, remedy=_RESTORE
            ) from error
        found = digest_bytes(contents[name])
        if found != digest:
            raise RunError(
                "the code of the run was changed after training",
                path=path,
                found=f"sha256 {found[:12]}",
                expected=digest[:12],
                remedy=_RESTORE,
            )
        origins[name] = str(path)
    return ModelSources(contents, origins)


def find_changes(code: Mapping[str, str], origins: Mapping[str, object]) -> list[str]:
    """Return the files, where they were read from, that are there and not what they were.

    What a run, which may come from anywhere, says of a file's place may be no path; nothing is known of such a file.
    """
    changed = []
    for name, digest in code.items():
        with contextlib.suppress(OSError, ValueError):
            path = origins.get(name)
            # The run, which may come from anywhere, says which file that is.
            if not isinstance(path, str) or os.stat(path).st_size > MAX_CODE_SIZE_BYTES:
                continue
            if digest_bytes(read_regular(path)) != digest:
                changed.append(path)
    return changed


def trust_sources(sources: ModelSources) -> None:
    """Note that this user has run these sources, so that they may be run again when a run has kept them."""
    # Without a folder to write to, the user is asked.
    with contextlib.suppress(OSError):
        folder = cache_folder("code")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / sources.digest).touch()


def is_trusted(digest: str) -> bool:
    """Whether :func:`trust_sources` was called for sources of this digest, by this user on this machine."""
    return (cache_folder("code") / digest).is_file()


def _measure(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # Told when it is read.
