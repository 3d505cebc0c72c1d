"""The source files of a model, as they were when they were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sensorium_data.files import digest_bytes

__all__ = ["ModelSources", "digest_code"]


@dataclass(frozen=True, eq=False)
class ModelSources:
    """Python files that belong together.

    Attributes
    ----------
    files : mapping of str to bytes
        What is in each file, by its path below the folder that modules are imported from: ``lab/layers.py`` is the
        module ``lab.layers``.
    origins : mapping of str to str
        Where each file was read from.
    """

    files: Mapping[str, bytes]
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, in the order of their paths."""
        return {path: digest_bytes(self.files[path]) for path in sorted(self.files)}

    @property
    def digest(self) -> str:
        """SHA-256 of all files and their paths."""
        return digest_code(self.digests)

    @property
    def top_names(self) -> frozenset[str]:
        """The modules and packages that are imported by a name without a dot."""
        return frozenset(PurePosixPath(path).parts[0].removesuffix(".py") for path in self.files)

    def find_module(self, name: str) -> tuple[str | None, bool] | None:
        """Return the path of a module's file and whether it is a package; None if there is no such module.

        A folder without an ``__init__.py`` is a package without a file.
        """
        path = name.replace(".", "/")
        if f"{path}/__init__.py" in self.files:
            return f"{path}/__init__.py", True
        if f"{path}.py" in self.files:
            return f"{path}.py", False
        return (None, True) if any(file.startswith(f"{path}/") for file in self.files) else None


def digest_code(code: Mapping[str, str]) -> str:
    """Return the digest of files by those of each, as :attr:`ModelSources.digests` returns them."""
    return hashlib.sha256(json.dumps(dict(code), sort_keys=True).encode()).hexdigest()
