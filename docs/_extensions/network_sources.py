"""Warn of a page that would load something from a network: the site is read without one."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["find_network_sources"]

# By tag, the attributes of what a browser loads by itself. A link that a reader clicks is none of them.
_LOADED = {
    "audio": ("src",), "embed": ("src",), "iframe": ("src",), "img": ("src", "srcset"), "input": ("src",),
    "link": ("href",), "object": ("data",), "script": ("src",), "source": ("src", "srcset"), "track": ("src",),
    "video": ("src", "poster"),
}  # fmt: skip
# What such links name is not loaded.
_NAMED = {"alternate", "author", "canonical", "license", "next", "prev", "search"}
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s;]+)""")


def find_network_sources(page: str) -> list[str]:
    """Return the addresses on a network from which a browser would load parts of a page, in its order.

    Parameters
    ----------
    page : str
        HTML; what its scripts load is not found.
    """
    finder = _Finder()
    finder.feed(page)
    return finder.found


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._is_style = tag == "style"
        self.found += find_in_style(given.get("style", ""))
        if tag == "link" and _NAMED.issuperset(given.get("rel", "stylesheet").lower().split()):
            return
        for name in _LOADED.get(tag, ()):
            # Several pictures in a `srcset`, each with its size.
            several = given.get(name, "").split(",") if name == "srcset" else [given.get(name, "")]
            addresses = [(one.split() or [""])[0] for one in several]
            self.found += [one for one in addresses if one.lower().startswith(("http:", "https:", "//"))]

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def handle_data(self, data: str) -> None:
        if self._is_style:
            self.found += find_in_style(data)


def find_in_style(style: str) -> list[str]:
    """Return the addresses on a network from which a style sheet would load others, fonts and pictures."""
    return _IN_STYLE.findall(style)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", _warn)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _warn(app: Sphinx, error: Exception | None) -> None:
    from sphinx.util import logging

    if error is not None or app.builder.format != "html":
        return
    for pattern, find in (("**/*.html", find_network_sources), ("**/*.css", find_in_style)):
        for page in sorted(Path(app.outdir).glob(pattern)):
            for address in find(page.read_text(encoding="utf-8")):
                logging.getLogger(__name__).warning("%s loads %s from a network", page.relative_to(app.outdir), address)
