"""Import of a model's sources under names of their own.

What is imported are the bytes that were read, and never a file that may have changed since. Each set of sources has a
name in ``sys.modules`` that no other has, so that two versions of one model can be used in one process, and a file
called ``models.py`` hides nobody's package.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any

from models.sources.collecting import resolve_import
from models.sources.sources import ModelSources, digest_code
from sensorium_data.errors import SensoriumError, UnknownNameError, UsageError

__all__ = ["LoadedSources", "find_loaded", "load_sources", "loaded_by_module"]

_PREFIX = "sensorium_model_"


@dataclass(frozen=True, eq=False)
class LoadedSources:
    """Sources that are imported in this process.

    Attributes
    ----------
    sources : ModelSources
    namespace : str
        The package in ``sys.modules`` that holds their modules.
    classes : dict
        What was made of a class by those who use it, by ``module:name``.
    """

    sources: ModelSources
    namespace: str
    classes: dict[str, Any] = field(default_factory=dict)

    def find(self, kind: str) -> Any:
        """Return what ``module:name`` names; the module is imported if it is not yet.

        Raises
        ------
        UsageError
            If the import fails, or there is nothing of that name in the module.
        """
        module_name, _, name = kind.partition(":")
        module = _import(self, module_name)
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None:
            own = [one for one, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
            raise UnknownNameError.of(f"class of {module_name}", name, own)
        return found

    def kind_of(self, model_class: type) -> str:
        """Return ``module:name`` of a class that these sources define."""
        module = model_class.__module__.removeprefix(f"{self.namespace}.")
        return f"{module}:{model_class.__qualname__}"


# By the sources' digest: a module is there once in a process, and so are its classes.
_LOADED: dict[str, LoadedSources] = {}
_LOCK = threading.RLock()


def load_sources(sources: ModelSources) -> LoadedSources:
    """Make sources importable in this process; equal ones are the same object.

    This runs nothing: :meth:`LoadedSources.find` does.
    """
    digest = sources.digest
    with _LOCK:
        if digest not in _LOADED:
            loaded = LoadedSources(sources, f"{_PREFIX}{digest[:32]}")
            package = ModuleType(loaded.namespace, "The sources of a model.")
            package.__path__ = []
            sys.modules[loaded.namespace] = package
            if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
                sys.meta_path.append(_Finder())
            _LOADED[digest] = loaded
        return _LOADED[digest]


def find_loaded(code: Mapping[str, str]) -> LoadedSources | None:
    """Return the sources of these digests, if they were loaded in this process."""
    return _LOADED.get(digest_code(code))


def loaded_by_module(module: str) -> LoadedSources | None:
    """Return the sources that a module, by its name in ``sys.modules``, is part of."""
    namespace = module.partition(".")[0]
    return next((loaded for loaded in _LOADED.values() if loaded.namespace == namespace), None)


def _import(loaded: LoadedSources, module: str) -> ModuleType:
    before = set(sys.modules)
    try:
        return importlib.import_module(f"{loaded.namespace}.{module}")
    except (SensoriumError, KeyboardInterrupt):
        raise
    # A script's sys.exit() ends the import, and not this process.
    except BaseException as error:
        for name in set(sys.modules) - before:
            if name.startswith(f"{loaded.namespace}."):
                del sys.modules[name]
        found = loaded.sources.find_module(module)
        path = (found[0] if found is not None else None) or module
        raise UsageError(
            "the code of the model cannot be imported",
            path=loaded.sources.origins.get(path, path),
            found=_describe(error, loaded),
            remedy="correct it"
            if not isinstance(error, FileNotFoundError)
            else "only Python files are kept with a model: put into them what it reads from other files",
        ) from error


def _describe(error: BaseException, loaded: LoadedSources) -> str:
    own = {loaded.sources.origins.get(path, path): path for path in loaded.sources.files}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    where = f" ({own[lines[-1].filename]}, line {lines[-1].lineno})" if lines else ""
    said = str(error).replace(f"{loaded.namespace}.", "")
    return f"{type(error).__name__}: {said}{where}" if said else f"{type(error).__name__}{where}"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of all sources that are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        loaded = loaded_by_module(fullname)
        module = fullname.partition(".")[2]
        found = None if loaded is None else loaded.sources.find_module(module)
        if loaded is None or found is None:
            return None
        file, is_package = found
        spec = importlib.machinery.ModuleSpec(fullname, _Loader(loaded, file), is_package=is_package)
        # No such file: what a model reads beside its own would not be there when it is loaded from a run.
        spec.origin = f"<{loaded.namespace}>/{file or module}"
        spec.has_location = True
        return spec


class _Loader(importlib.abc.InspectLoader):
    """Runs a module's text with its absolute imports of other files led to these."""

    def __init__(self, loaded: LoadedSources, file: str | None) -> None:
        self._loaded = loaded
        self._file = file

    def is_package(self, fullname: str) -> bool:
        return self._file is None or self._file.endswith("__init__.py")

    def get_source(self, fullname: str) -> str:
        if self._file is None:
            return ""
        return importlib.util.decode_source(self._loaded.sources.files[self._file])

    def get_code(self, fullname: str) -> CodeType:
        sources = self._loaded.sources
        content = b"" if self._file is None else sources.files[self._file]
        # What a traceback shows.
        filename = sources.origins.get(self._file or "", f"<{fullname}>")
        tree = ast.parse(content, filename=filename)
        module = fullname.partition(".")[2]
        rewriter = _ImportRewriter(self._loaded, module, is_package=self.is_package(fullname))
        tree = ast.fix_missing_locations(rewriter.visit(tree))
        # The file's own future statements alone.
        code: CodeType = compile(tree, filename, "exec", dont_inherit=True)
        return code


class _ImportRewriter(ast.NodeTransformer):
    """Leads ``import helpers`` to ``<namespace>.helpers`` where ``helpers`` is among the sources."""

    def __init__(self, loaded: LoadedSources, module: str, *, is_package: bool) -> None:
        self._namespace = loaded.namespace
        self._names = loaded.sources.top_names - {"flows", "models", "sensorium_data"}
        self._module = module
        self._is_package = is_package

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        statements: list[ast.stmt] = []
        for alias in node.names:
            top = alias.name.partition(".")[0]
            if top not in self._names:
                statements.append(ast.Import([alias]))
            elif alias.asname is not None:
                statements.append(ast.Import([ast.alias(f"{self._namespace}.{alias.name}", alias.asname)]))
            else:
                # `import a.b` binds a.
                statements.append(ast.Import([ast.alias(f"{self._namespace}.{alias.name}")]))
                statements.append(ast.ImportFrom(self._namespace, [ast.alias(top)], 0))
        return [ast.copy_location(statement, node) for statement in statements]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        base = resolve_import(node, self._module, is_package=self._is_package)
        if not base or (not node.level and base.partition(".")[0] not in self._names):
            return node
        return ast.copy_location(ast.ImportFrom(f"{self._namespace}.{base}", node.names, 0), node)
