"""Folders that have a fixed name, because whoever continues interrupted work has to find them: whose they are."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sensorium_data.counting import name_some
from sensorium_data.errors import StoreError
from sensorium_data.files.local_objects import LocalObjects
from sensorium_data.files.objects import Objects
from sensorium_data.files.regular_file import describe_kind
from sensorium_data.files.temporary_files import temporary_of

__all__ = ["MOVE_FOREIGN", "WorkingFolder"]

#: The remedy for a folder that :meth:`WorkingFolder.find_obstacle` objects to.
MOVE_FOREIGN = "move it to another place; nothing in it was changed"


@dataclass(frozen=True)
class WorkingFolder:
    """A kind of folder in which something is made that can be continued.

    A folder is of this kind if it bears the marker, an object that is written before all others and deleted after them.
    Only what has a name that the work gives is ever deleted in it; what else lies there stays.

    Attributes
    ----------
    marker : str
        The marker's key.
    is_marker : callable
        Whether an object of these bytes is one.
    makes : callable
        Takes a key, and returns whether the work makes an object of that key; the marker's is one.
    is_as_made : callable, optional
        Takes the folder and a key that the work makes, and returns whether the object there is what the work wrote, for
        objects whose keys users choose. Called where something is to be deleted.
    folders : frozenset of str
        Folders that the work makes. Nothing else may have their name.
    holds_no_folders : callable, optional
        Takes a key that the work makes, and returns whether a folder of that name is in its way.
    """

    marker: str
    is_marker: Callable[[bytes], bool]
    makes: Callable[[str], bool]
    is_as_made: Callable[[Objects, str], bool] = lambda objects, key: True
    folders: frozenset[str] = frozenset()
    holds_no_folders: Callable[[str], bool] = lambda key: False

    def is_own_key(self, key: str) -> bool:
        """Whether the work makes objects of this key, or temporary files that are to become one."""
        return self.makes(key) or self.is_temporary(key)

    def is_temporary(self, key: str) -> bool:
        """Whether the work has temporary files of this key."""
        folder, slash, name = key.rpartition("/")
        written = temporary_of(name)
        return written is not None and self.makes(f"{folder}{slash}{written}")

    def bears_marker(self, objects: Objects) -> bool:
        """Whether the work began there."""
        try:
            return not _is_link(objects, self.marker) and self.is_marker(objects.read(self.marker))
        except (FileNotFoundError, StoreError):
            return False

    def find_obstacle(self, objects: Objects) -> str:
        """Return why the work must neither begin nor go on there, as a clause; empty if it may.

        It may where nothing is, or nothing but what a writer of the marker left that was killed. Where the marker is,
        it may if nothing else has the name of a file or of a folder that the work makes.
        """
        if not self.bears_marker(objects):
            found = [
                key
                for key in _list_entries(objects)
                if not (self.is_temporary(key) and self._is_own_file(objects, key))
            ]
            return f"{name_some(found)}, without a {self.marker} that this software wrote" if found else ""
        if not isinstance(objects, LocalObjects):
            return ""
        for key in _walk(objects.root):
            path = objects.root / key
            mode = path.lstat().st_mode
            if _is_folder(path):
                # Chunks lie in folders that are called as chunks could be.
                is_taken = self.makes(key) and self.holds_no_folders(key)
                expected = "a file"
            elif key in self.folders:
                is_taken, expected = True, "a folder"
            else:
                is_taken, expected = self.is_own_key(key) and not stat.S_ISREG(mode), "a file"
            if is_taken:
                return f"{key}: {describe_kind(mode)}, not {expected}"
        return ""

    def list_foreign(self, objects: Objects) -> list[str]:
        """Return the keys of what lies there and is not of the work, sorted."""
        if not isinstance(objects, LocalObjects):
            return [key for key in objects.keys() or () if not self._is_own_file(objects, key)]
        return [
            key
            for key in _walk(objects.root)
            if not self._is_own_file(objects, key) and not _is_folder(objects.root / key)
        ]

    def describe_foreign(self, objects: Objects, within: str = "") -> str:
        """Return what of somebody else's lies there, as a clause; empty if nothing does.

        Parameters
        ----------
        objects : Objects
            The folder.
        within : str
            What the keys begin with that are looked at; by default all are.
        """
        found = [key for key in self.list_foreign(objects) if key.startswith(within)]
        return f"it holds {name_some(found)}, which this software did not make" if found else ""

    def delete_own(self, objects: Objects, keys: Iterable[str] | None = None) -> None:
        """Delete what the work made, the marker last, and the folders below that this leaves empty.

        Parameters
        ----------
        objects : Objects
            The folder, which stays.
        keys : iterable of str, optional
            What lies there, where that was just listed.

        Raises
        ------
        StoreError
            If something cannot be deleted.
        """
        own = [key for key in (objects.keys() if keys is None else keys) or () if self._is_own_file(objects, key)]
        objects.delete_keys([key for key in own if key != self.marker])
        if isinstance(objects, LocalObjects):
            folders = {folder for key in own for folder in PurePosixPath(key).parents if folder.name}
            for folder in sorted(folders, key=lambda one: len(one.parts), reverse=True):
                with contextlib.suppress(OSError):
                    # Something else may lie there.
                    (objects.root / folder).rmdir()
        objects.delete_keys([key for key in own if key == self.marker])

    def discard(self, objects: Objects) -> None:
        """Delete what the work made, and the folder if nothing else is in it; nothing where the work never began.

        Raises
        ------
        StoreError
            If something cannot be deleted.
        """
        if isinstance(objects, LocalObjects):
            if not self.find_obstacle(objects):
                self.delete_own(objects)
                with contextlib.suppress(OSError):
                    objects.root.rmdir()
            return
        if self.bears_marker(objects):
            self.clear(objects)

    def clear(self, objects: Objects) -> None:
        """Delete what the work made behind a URL, and the folder if nothing else is in it.

        Whoever calls it has found nothing there before the work began.

        Raises
        ------
        StoreError
            If something cannot be deleted.
        """
        self.delete_own(objects)
        if not objects.keys():
            # Some file systems behind URLs have folders, too.
            objects.delete_all()

    def _is_own_file(self, objects: Objects, key: str) -> bool:
        if not self.is_own_key(key) or not (self.is_temporary(key) or self.is_as_made(objects, key)):
            return False
        return not isinstance(objects, LocalObjects) or stat.S_ISREG((objects.root / key).lstat().st_mode)


def _is_link(objects: Objects, key: str) -> bool:
    return isinstance(objects, LocalObjects) and (objects.root / key).is_symlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _list_entries(objects: Objects) -> list[str]:
    """Return the names of what lies directly in a folder, folders too; of remote objects, all keys."""
    if not isinstance(objects, LocalObjects):
        return objects.keys() or []
    return sorted(os.listdir(objects.root)) if objects.root.is_dir() else []


def _walk(root: Path) -> list[str]:
    """Return the paths of everything below a folder, relative to it; links are not followed."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
        for folder, folders, names in os.walk(root)
        for name in (*folders, *names)
    )
