"""Which files a model's code consists of: its own, and those that they import of the user's."""

from __future__ import annotations

import ast
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.sources.sources import ModelSources
from models.sources.target import Target
from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files import read_regular
from sensorium_data.limits import MAX_CODE_FILES, MAX_CODE_SIZE_BYTES

__all__ = ["collect_sources"]

#: Packages that models are made with, whatever files of these names a user has.
_OWN_PACKAGES = frozenset({"flows", "models", "sensorium_data"})


def collect_sources(target: Target) -> ModelSources:
    """Return the files of a target's module and of all that it imports, directly or not, of the user's own.

    Imports are read off the text, in functions too; nothing is run. What lies in Python's own folders or among
    installed packages is left out, but for the package that the target itself is in. Compiled modules are too.

    Raises
    ------
    UsageError
        If there is no such module, a file cannot be read or is no Python, or there is too much of it.
    """
    search = _Search(target)
    found = search.locate(target.module)
    if found is None or found.file is None:
        raise UsageError(
            "there is no such module",
            found=repr(target.module),
            expected=f"Python source in {' or '.join(map(str, [*target.folders, 'where Python looks for modules']))}",
            remedy="name its file instead, or add its folder to PYTHONPATH"
            if target.folders
            else "install the package again",
        )
    files: dict[str, bytes] = {}
    origins: dict[str, str] = {}
    waiting, seen = [target.module], {target.module}
    while waiting:
        name = waiting.pop()
        located = search.locate(name)
        if located is None:
            continue
        wanted = [name.rpartition(".")[0]]
        if located.file is not None:
            content = _read(located.file)
            files[located.key] = content
            origins[located.key] = str(located.file)
            _require_bounds(files, target)
            wanted += list_imports(content, name, is_package=located.is_package, path=located.file)
        for other in wanted:
            if other and other not in seen:
                seen.add(other)
                waiting.append(other)
    return ModelSources(files, origins)


def list_imports(content: bytes, module: str, *, is_package: bool, path: Path) -> Iterator[str]:
    """Yield the full names of what a module's text imports: modules, and what may be modules.

    Raises
    ------
    UsageError
        If the text is no Python.
    """
    try:
        tree = ast.parse(content, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        problem = error.msg if isinstance(error, SyntaxError) else str(error) or "too deep for Python's parser"
        raise UsageError(
            "the code of the model is no Python", path=path, found=f"{problem}{line}", remedy="correct the file"
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_import(node, module, is_package=is_package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def resolve_import(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """Return the full name of what a ``from … import`` of a module names; empty if it leads out of all packages."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    n_kept = len(parts) - node.level + is_package
    if n_kept < 1:
        return ""
    return ".".join([*parts[:n_kept], *([node.module] if node.module else [])])


@dataclass(frozen=True)
class _Located:
    """A module of the user's: its file, what that is called among the kept ones, and where its submodules are."""

    file: Path | None
    key: str
    folders: tuple[Path, ...]

    @property
    def is_package(self) -> bool:
        return bool(self.folders)


class _Search:
    """Finds modules without importing any."""

    def __init__(self, target: Target) -> None:
        self._folders = target.folders
        self._top = target.module.partition(".")[0]
        self._found: dict[str, _Located | None] = {}
        self._installed = _installed_folders()

    def locate(self, name: str) -> _Located | None:
        """Return where a module is, None if there is none or it is none of the user's."""
        if name not in self._found:
            self._found[name] = self._locate(name)
        return self._found[name]

    def _locate(self, name: str) -> _Located | None:
        parent, _, last = name.rpartition(".")
        if parent:
            package = self.locate(parent)
            return None if package is None else _look(package.folders, last, name)
        if name == self._top:
            return _look(self._folders, name, name) or self._look_everywhere(name)
        if name in _OWN_PACKAGES or name in sys.stdlib_module_names:
            return None
        found = _look(self._folders, name, name) or self._look_everywhere(name)
        places = () if found is None else ((found.file,) if found.file is not None else found.folders)
        is_installed = any(place.resolve().is_relative_to(one) for place in places for one in self._installed)
        return None if is_installed else found

    def _look_everywhere(self, name: str) -> _Located | None:
        """Look where Python does; what it finds by other means than a path too."""
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None  # E.g. __main__.
        if spec is None:
            return None
        folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
        if spec.origin is None or not spec.origin.endswith(".py"):
            return _Located(None, name, folders) if folders and spec.origin is None else None
        key = f"{name}/__init__.py" if folders else f"{name}.py"
        return _Located(Path(spec.origin), key, folders)


def _look(folders: Sequence[Path], last: str, name: str) -> _Located | None:
    """Return the module of a name's last part in some folders: a package first, then a file, then a bare folder."""
    key = name.replace(".", "/")
    for folder in folders:
        if (folder / last / "__init__.py").is_file():
            return _Located(folder / last / "__init__.py", f"{key}/__init__.py", (folder / last,))
        if (folder / f"{last}.py").is_file():
            return _Located(folder / f"{last}.py", f"{key}.py", ())
    bare = tuple(folder / last for folder in folders if (folder / last).is_dir() and any((folder / last).rglob("*.py")))
    return _Located(None, key, bare) if bare else None


def _installed_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    names = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return [Path(name).resolve() for name in {*names, *site.getsitepackages(), site.getusersitepackages()}]


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UsageError(
            "the code of the model cannot be read", path=path, found=describe_os_error(error), remedy="check the file"
        ) from error


def _require_bounds(files: dict[str, bytes], target: Target) -> None:
    size_bytes = sum(map(len, files.values()))
    if len(files) <= MAX_CODE_FILES and size_bytes <= MAX_CODE_SIZE_BYTES:
        return
    raise UsageError(
        "the code of the model is too much to be kept with a run",
        found=f"{len(files)} files, {size_bytes / 1e6:.1f} MB, the last one {list(files)[-1]}",
        expected=f"up to {MAX_CODE_FILES} files and {MAX_CODE_SIZE_BYTES / 1e6:.0f} MB",
        remedy=f"install what {target.module} imports, or import less",
    )
