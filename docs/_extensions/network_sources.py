"""Warn of a page that would load something from a network: the site is read without one."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["find_network_sources"]

# By tag, the attribute of what a browser loads by itself. A link that a reader clicks is none of them.
_LOADED = {
    "audio": "src", "embed": "src", "iframe": "src", "img": "src", "link": "href", "object": "data", "script": "src",
    "source": "src", "video": "src",
}  # fmt: skip


def find_network_sources(page: str) -> list[str]:
    """Return the addresses on a network from which a browser would load parts of a page.

    Parameters
    ----------
    page : str
        HTML.
    """
    finder = _Finder()
    finder.feed(page)
    return finder.found


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(_LOADED.get(tag, "")) or ""
        if address.startswith(("http:", "https:", "//")):
            self.found.append(address)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", _warn)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _warn(app: Sphinx, error: Exception | None) -> None:
    from sphinx.util import logging

    if error is not None or app.builder.format != "html":
        return
    for page in sorted(Path(app.outdir).glob("**/*.html")):
        for address in find_network_sources(page.read_text(encoding="utf-8")):
            logging.getLogger(__name__).warning("%s loads %s from a network", page.relative_to(app.outdir), address)
