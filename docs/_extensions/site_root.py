"""Put a page at the site's root that leads to the front page, which lies in ``docs/`` as in the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={front}">
</head>
<body><a href="{front}">{title}</a></body>
</html>
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", _write_root)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_root(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        page = _PAGE.format(title=app.config.html_title, front=app.builder.get_target_uri(app.config.root_doc))
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")
