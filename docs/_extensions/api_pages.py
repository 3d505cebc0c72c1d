"""The pages of the API reference, one for each package, and the links to what they describe.

What a package offers is listed in its ``__init__.pyi``, where ``# public`` marks the names that users call. A page
shows the public names of that list: a table, and below it each name's docstring. The other names, which only matter
within the project, stand on pages of their own, for contributors. A name that several packages offer is described once,
in the uppermost package around its definition, from which users import it; the tables of the others link to it.

A reference in a docstring may name a thing where it is defined (``sensorium_data.store.opening.open_store``), or as the
docstring's own module knows it; it leads to where that thing is described. One that nothing has is a warning. Names of
other libraries are not linked, since their pages are elsewhere.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from docutils import nodes
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

    #: The names of each package, each with the full name under which it is described.
    Catalog = dict[str, list[tuple["OfferedName", str]]]

_PACKAGES = ("sensorium_data", "models", "flows")
#: Modules that users import from, and that are no packages.
_MODULES = ("sensorium_data.errors",)
#: Everything that these offer is public.
_PUBLIC_PACKAGES = ("sensorium_data", "models")
_MARK = "# public"
_FOLDER = "docs/api"
_INNER = "contributors"
_TITLES = {
    "sensorium_data": "Data: ``sensorium_data``",
    "models": "Models: ``models``",
    "flows": "Flows and commands: ``flows``",
}


@dataclass(frozen=True)
class OfferedName:
    """A name that a package offers.

    Attributes
    ----------
    package : str
        The package that offers it.
    name : str
        Its name there.
    thing : object
        What it is.
    module : str
        The module that the package takes it from.
    is_public : bool
        Whether users call it.
    """

    package: str
    name: str
    thing: Any
    module: str
    is_public: bool

    @property
    def full_name(self) -> str:
        return f"{self.package}.{self.name}"

    @property
    def directive(self) -> str:
        if inspect.ismodule(self.thing):
            return "module"
        if inspect.isclass(self.thing):
            return "exception" if issubclass(self.thing, BaseException) else "class"
        # A type's alias can be called, and has the docstring of what it stands for.
        is_alias = get_origin(self.thing) is not None
        return "function" if callable(self.thing) and not is_alias else "data"

    @property
    def summary(self) -> str:
        """Return the first paragraph of what describes it."""
        text = self.comment if self.directive == "data" else inspect.getdoc(self.thing) or ""
        # Outside of its docstring a reference would lead nowhere.
        return re.sub(r":[\w:]+:`~?([^`]+)`", r"``\1``", " ".join(text.partition("\n\n")[0].split()))

    @property
    def comment(self) -> str:
        """Return what ``#:`` above plain data says of it; empty if nothing does."""
        found = ModuleAnalyzer.for_module(self.module).find_attr_docs().get(("", self.name), [])
        return " ".join(line.strip() for line in found).strip()

    @property
    def value(self) -> str:
        """Return plain data as it prints, where that is short."""
        printed = repr(self.thing)
        return printed if len(printed) <= 70 and isinstance(self.thing, (str, int, float, tuple)) else ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", _write_pages)
    # After napoleon, whose priority is the usual one.
    app.connect("autodoc-process-docstring", _separate_attributes, priority=600)
    app.connect("doctree-read", _unlink_attribute_names)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# Names


def _packages(root: Path) -> Iterator[str]:
    for top in _PACKAGES:
        stubs = root.joinpath(top).glob("**/__init__.pyi")
        packages = {".".join(stub.parent.relative_to(root).parts) for stub in stubs}
        yield from sorted(packages | {module for module in _MODULES if module.startswith(f"{top}.")})


def _offered(root: Path, package: str) -> Iterator[OfferedName]:
    module = importlib.import_module(package)
    stub = root.joinpath(*package.split("."), "__init__.pyi")
    if not stub.exists():
        for name in module.__all__:
            thing = getattr(module, name)
            yield OfferedName(package, name, thing, package, is_public=inspect.isclass(thing))
        return
    text = stub.read_text(encoding="utf-8")
    lines = text.splitlines()
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ImportFrom):
            source = ".".join(filter(None, (package, statement.module)))
            is_public = package in _PUBLIC_PACKAGES or lines[statement.lineno - 1].endswith(_MARK)
            for alias in statement.names:
                name = alias.asname or alias.name
                yield OfferedName(package, name, getattr(module, name), source, is_public)


def _home(name: OfferedName, offered_in: list[str]) -> str:
    """Return the package whose page describes a name: the uppermost one of the packages around its definition."""
    module = getattr(name.thing, "__module__", None) or ""
    around = [package for package in offered_in if module == package or module.startswith(f"{package}.")]
    return min(around or offered_in, key=len)


@cache
def _catalog(root: Path) -> Catalog:
    """Return, for each package, the names that it offers and the full name under which each is described."""
    offered = {package: list(_offered(root, package)) for package in _packages(root)}
    packages_of: dict[tuple[int, str], list[str]] = {}
    for package, names in offered.items():
        for name in names:
            packages_of.setdefault((id(name.thing), name.name), []).append(package)
    return {
        package: [(name, f"{_home(name, packages_of[id(name.thing), name.name])}.{name.name}") for name in names]
        for package, names in offered.items()
    }


@cache
def _described(root: Path) -> dict[int, str]:
    """Return the full name under which each thing is described, by its identity."""
    return {
        id(name.thing): full_name
        for names in _catalog(root).values()
        for name, full_name in names
        if name.directive not in ("module", "data")
    }


# Pages


def _write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir, _FOLDER)
    pages = {folder / name: text for name, text in _pages(_catalog(Path(app.srcdir)))}
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text)
    for stale in set(folder.glob("**/*.rst")) - set(pages):
        stale.unlink()


def _write(path: Path, text: str) -> None:
    """Write a file, unless it has that text: what is not touched is not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _pages(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yield the pages, each with its place below the folder."""
    public, inner = _divide(catalog)
    yield "index.rst", "\n".join(_index(public))
    yield f"{_INNER}/index.rst", "\n".join(_inner_index(inner))
    for package, names in public.items():
        yield f"{package}.rst", "\n".join(_page(package, names, list(public)))
    for package, names in inner.items():
        yield f"{_INNER}/{package}.rst", "\n".join(_inner_page(package, names, has_page=package in public))


def _divide(catalog: Catalog) -> tuple[Catalog, Catalog]:
    """Return the packages with the names that users call, and those with the names that they do not."""
    public_names = {full_name for names in catalog.values() for name, full_name in names if name.is_public}
    public: Catalog = {}
    inner: Catalog = {}
    for package, names in catalog.items():
        for name, full_name in names:
            divided = public if full_name in public_names else inner
            divided.setdefault(package, []).append((name, full_name))
    return public, inner


def _index(public: Catalog) -> Iterator[str]:
    yield from ("API reference", "=============", "")
    yield "Made from the docstrings. A package's page has the names that users call. The names with which the packages"
    yield "serve each other are :doc:`on pages for contributors </docs/api/contributors/index>`."
    yield from _contents(public)


def _inner_index(inner: Catalog) -> Iterator[str]:
    title = "API for contributors"
    yield from (title, "=" * len(title), "")
    yield "Names with which the packages of this project serve each other. To use the software, none of them is needed:"
    yield "see the :doc:`API reference </docs/api/index>`. They may change in any version."
    yield from _contents(inner)


def _contents(packages: Catalog) -> Iterator[str]:
    for top in _PACKAGES:
        if below := [package for package in packages if package.split(".")[0] == top]:
            yield from ("", _TITLES[top], "-" * len(_TITLES[top]), "", ".. toctree::", "   :maxdepth: 1", "")
            yield from (f"   {package}" for package in below)
    yield ""


def _page(package: str, names: list[tuple[OfferedName, str]], packages: list[str]) -> Iterator[str]:
    yield from (package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", "")
    yield from _table(names)
    if modules := [name for name, _ in names if name.directive == "module" and name.full_name in packages]:
        yield from ("Packages in it:", "")
        yield from (f"- :py:mod:`{name.full_name}`: {name.summary}" for name in modules)
        yield ""
    yield from _descriptions(names)


def _inner_page(package: str, names: list[tuple[OfferedName, str]], *, has_page: bool) -> Iterator[str]:
    title = f"{package}, for contributors"
    yield from (title, "=" * len(title), "")
    if has_page:
        yield f"What :py:mod:`{package}` offers to the other packages of this project."
    else:
        yield from (f".. automodule:: {package}", "   :no-members:")
    yield from (
        "",
        ".. note::",
        "",
        "   To use the software, none of these names is needed. They may change in any version.",
        "",
    )
    yield from _table(names)
    yield from _descriptions(names)


def _table(names: list[tuple[OfferedName, str]]) -> Iterator[str]:
    if rows := [(name, full) for name, full in names if name.directive != "module"]:
        yield from (".. list-table::", "   :widths: 40 60", "   :class: api-names", "")
        for name, full_name in rows:
            role = {"class": "class", "exception": "exc", "function": "func", "data": "data"}[name.directive]
            yield f"   * - :py:{role}:`{name.name} <{full_name}>`"
            yield f"     - {name.summary}"
        yield ""


def _descriptions(names: list[tuple[OfferedName, str]]) -> Iterator[str]:
    for name, full_name in names:
        if name.full_name == full_name and name.directive != "module":
            yield from _description(name)
            yield ""


def _description(name: OfferedName) -> Iterator[str]:
    if name.directive == "data":
        # autodata would show the docstring of its type.
        yield f".. py:data:: {name.full_name}"
        if name.value:
            yield f"   :value: {name.value}"
        yield from ("", f"   {name.comment}")
        return
    yield f".. auto{name.directive}:: {name.full_name}"
    if name.directive in ("class", "exception"):
        yield "   :members:"
        if name.thing.__bases__ != (object,):
            yield "   :show-inheritance:"


# References


def _separate_attributes(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Describe attributes that a docstring describes together (``mean, std : float``) one by one.

    Sphinx takes the first of two words after ``:ivar`` for a type.
    """
    separated: list[str] = []
    together: list[list[str]] = []
    for line in lines:
        if together and line.startswith(" "):
            for field in together:
                field.append(line)
            continue
        separated += [part for field in together for part in field]
        together = []
        if found := re.fullmatch(r":(ivar|vartype) (\w+(?:, \w+)+):(.*)", line):
            together = [[f":{found[1]} {attribute}:{found[3]}"] for attribute in found[2].split(", ")]
        else:
            separated.append(line)
    lines[:] = separated + [part for field in together for part in field]


def _unlink_attribute_names(app: Sphinx, doctree: nodes.document) -> None:
    """Take the links from the names of attributes in a class's docstring, which describes them itself."""
    for reference in list(doctree.findall(pending_xref)):
        if reference.get("reftype") == "obj" and _is_type(reference):
            reference.replace_self(reference.children)


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.reference | nodes.Element | None:
    """Link a name to where it is described; show it as code if it exists and is described nowhere."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if not re.fullmatch(r"[A-Za-z_][\w.]*", target):
        return contnode  # a type in prose: "str to float"
    described = _described(Path(app.srcdir))
    for thing, rest in _find_from(target, _origin(node)):
        linked = None
        if id(thing) in described:
            linked = _link(app, env, node, contnode, ".".join([described[id(thing)], *rest]))
        return contnode if linked is None else linked
    if full_name := _only_one(described, target):
        return _link(app, env, node, contnode, full_name) or contnode
    return contnode if _is_type(node) else None


def _origin(node: pending_xref) -> str:
    """Return the full name of what has the docstring in which a reference stands; empty outside of docstrings."""
    while node is not None:
        if found := re.search(r"docstring of ([\w.]+)", getattr(node, "source", None) or ""):
            return found[1]
        node = node.parent
    return ""


def _find_from(target: str, origin: str) -> Iterator[tuple[Any, list[str]]]:
    """Return what a name names as the docstring of ``origin`` knows it."""
    yield from _find(target)
    parts = origin.split(".") if origin else []
    for n_parts in range(len(parts), 0, -1):
        prefix = ".".join(parts[:n_parts])
        yield from _find(f"{prefix}.{target}")
        # The module that defines it, where the docstring is found under a package's name for it.
        for thing, _ in _find(prefix):
            if module := getattr(thing, "__module__", None):
                yield from _find(f"{module}.{target}")


def _only_one(described: dict[int, str], name: str) -> str | None:
    """Return the full name of the only described thing that a name begins with; None if there is none, or several."""
    first, *rest = name.split(".")
    found = {full_name for full_name in described.values() if full_name.rpartition(".")[2] == first}
    return ".".join([found.pop(), *rest]) if len(found) == 1 else None


def _link(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element, full_name: str
) -> nodes.reference | None:
    python = env.get_domain("py")
    for objtype in (node["reftype"], "obj"):
        found = python.resolve_xref(env, node["refdoc"], app.builder, objtype, full_name, _plain(node), contnode)
        if found is not None:
            return found
    return None


def _plain(node: pending_xref) -> pending_xref:
    copied = node.copy()
    for attribute in ("py:class", "py:module", "refspecific"):
        copied[attribute] = None
    return copied


def _is_type(node: nodes.Node) -> bool:
    """Whether a reference was made from an annotation, or from a type of a docstring's section.

    Names that are imported for type checkers alone stand in annotations, and words in sections ("mapping").
    """
    while node is not None:
        if isinstance(node, (nodes.field, desc_signature)):
            return True
        node = node.parent
    return False


def _find(name: str) -> Iterator[tuple[Any, list[str]]]:
    """Return what a dotted name names; of an attribute, the class and the attribute's name."""
    parts = name.split(".")
    for n_parts in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:n_parts]))
        except (ImportError, ValueError):
            continue
        for position, part in enumerate(parts[n_parts:], n_parts):
            if inspect.isclass(thing) and position == len(parts) - 1:
                if hasattr(thing, part) or part in getattr(thing, "__annotations__", {}):
                    yield thing, [part]
                return
            if not hasattr(thing, part):
                return
            thing = getattr(thing, part)
        yield thing, []
        return
