"""Lead links to the gallery's sources to the pages that are made of them.

A page links to a file or folder of ``docs/examples``, which exists in the checkout: ``[Gallery](examples)``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["lead_to_gallery"]

_LINK = re.compile(r"\]\((?P<above>(?:\.\./)*(?:docs/)?)examples(?P<place>(?:/[\w-]+)*)(?P<ending>\.py|/)?\)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", _replace_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def lead_to_gallery(text: str) -> str:
    """Return a page's Markdown with links to the gallery's pages in place of those to the examples' files."""
    return _LINK.sub(_replace_link, text)


def _replace_link(link: re.Match[str]) -> str:
    place = link["place"] if link["ending"] == ".py" else f"{link['place']}/index"
    return f"]({link['above']}gallery{place}.rst)"


def _replace_links(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = lead_to_gallery(source[0])
