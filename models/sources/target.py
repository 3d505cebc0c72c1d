"""What a user names to train: a class in a file, ``my_model.py:MyModel``, or in a module, ``lab.models:MyModel``."""

from __future__ import annotations

import ast
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.errors import UsageError, describe_broken_link
from sensorium_data.files import describe_kind

__all__ = ["Target", "is_target", "parse_target"]

_IN_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>[^:/]*))?")
_IN_MODULE = re.compile(r"(?P<module>\w+(?:\.\w+)*):(?P<name>[^:/]*)")


@dataclass(frozen=True)
class Target:
    """A class, or another thing, in a module.

    Attributes
    ----------
    text : str
        As it was named.
    module, name : str
        Of the thing; ``module`` is what it is imported by.
    folders : tuple of Path
        Where modules are looked for first.
    """

    text: str
    module: str
    name: str
    folders: tuple[Path, ...]

    @property
    def kind(self) -> str:
        """``module:name``, whatever way it was named."""
        return f"{self.module}:{self.name}"


def is_target(text: str) -> bool:
    """Whether a text names something in a file or a module, and no preset."""
    return _IN_FILE.fullmatch(text) is not None or _IN_MODULE.fullmatch(text) is not None


def parse_target(text: str) -> Target:
    """Return what a text names, with the file, if it names one, where it lies now.

    Raises
    ------
    UsageError
        If there is no such file, or no class is named.
    """
    in_file, in_module = _IN_FILE.fullmatch(text), _IN_MODULE.fullmatch(text)
    if in_file is None:
        if in_module is None:
            raise UsageError("this names no model", found=repr(text), expected="FILE.py:CLASS or MODULE:CLASS")
        return Target(text, in_module["module"], _require_name(in_module["name"], text), (Path.cwd(),))
    path = Path(in_file["file"]).absolute()
    if not path.is_file():
        if os.path.lexists(path):
            found = describe_broken_link(path) or describe_kind(path.stat().st_mode)
            raise UsageError("this is no file", path=path, found=found, expected="the file that a model's class is in")
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=3, cutoff=0.5)
        raise UsageError(
            "there is no such file",
            path=path,
            expected="the file that a model's class is in",
            remedy=f"did you mean {' or '.join(near)}?" if near else "check the path",
        )
    name = _require_name(in_file["name"] or "", text, path)
    if "." in path.stem:
        raise UsageError(
            "no module can have this name", path=path, found="a dot before .py", remedy="give the file another name"
        )
    module, folders = path.stem, [path.parent]
    # A file that imports its neighbors relatively is a part of their package.
    if _imports_relatively(path):
        folder = path.parent
        while (folder / "__init__.py").is_file():
            module, folder = f"{folder.name}.{module}", folder.parent
        folders.append(folder)
    return Target(text, module, name, tuple(folders))


def list_classes(source: bytes) -> list[str]:
    """Return the names of the classes and functions that a file defines, and of what it assigns to a capital name."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            names.append(node.name)
        if isinstance(node, ast.Assign):
            names += [one.id for one in node.targets if isinstance(one, ast.Name) and one.id[:1].isupper()]
    return names


def _require_name(name: str, text: str, path: Path | None = None) -> str:
    if name.isidentifier():
        return name
    known: list[str] = []
    if path is not None:
        try:
            known = list_classes(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            known = []
    raise UsageError(
        "the class is not named" if not name else "this is no name of a class",
        found=repr(text),
        expected="FILE.py:CLASS or MODULE:CLASS",
        remedy=f"choose among {', '.join(known)}" if known else None,
    )


def _imports_relatively(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # Said when it is read.
    return any(isinstance(node, ast.ImportFrom) and node.level > 0 for node in ast.walk(tree))
