"""Describe the gallery's thumbnails, whose alternative texts sphinx-gallery leaves empty: the title of the example."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sphinx.application import Sphinx

__all__ = ["describe_thumbnails"]

_THUMBNAIL = re.compile(r"sphx_glr_(?P<example>\w+)_thumb\.\w+$")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    # The titles of all pages are known then.
    app.connect("doctree-resolved", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def describe_thumbnails(doctree: nodes.document, titles: Mapping[str, str]) -> None:
    """Give each thumbnail the title of its example, by the example's name."""
    for image in doctree.findall(nodes.image):
        thumbnail = _THUMBNAIL.search(image["uri"])
        if thumbnail is not None and thumbnail["example"] in titles:
            image["alt"] = titles[thumbnail["example"]]


def _describe(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if docname.startswith("docs/gallery/"):
        titles = {name.rpartition("/")[2]: title.astext() for name, title in app.env.titles.items() if "/plot_" in name}
        describe_thumbnails(doctree, titles)
