"""Keep out of the gallery what differs from machine to machine, and what examples should not do."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

__all__ = ["heed_warnings"]

_FOLDER = "docs/gallery/"
_earlier_filters: list[list[Any]] = []
_temporary_folders: list[str] = []
# Where examples would write, and where their own folder lies while the site is built.
_TEMPORARY_FOLDER = tempfile.gettempdir()
_logger = logging.getLogger(__name__)


def heed_warnings(gallery_conf: dict[str, Any], name: str, when: str) -> None:
    """Let a warning end an example; sphinx-gallery calls this ``before`` and ``after`` each one."""
    if when == "before":
        _earlier_filters.append(warnings.filters[:])
        warnings.simplefilter("error")
    elif _earlier_filters:
        warnings.filters[:] = _earlier_filters.pop()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    # Before sphinx-gallery runs the examples.
    app.connect("builder-inited", _keep_temporary_files_together, priority=100)
    app.connect("build-finished", _delete_temporary_files)
    app.connect("doctree-read", _warn_of_paths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keep_temporary_files_together(app: Sphinx) -> None:
    """Let examples make their temporary folders in one that is deleted after the build."""
    folder = tempfile.mkdtemp(prefix="sensorium-gallery-")
    _temporary_folders.append(folder)
    tempfile.tempdir = folder


def _delete_temporary_files(app: Sphinx, exception: Exception | None) -> None:
    tempfile.tempdir = None
    while _temporary_folders:
        shutil.rmtree(_temporary_folders.pop(), ignore_errors=True)


def _warn_of_paths(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of an example that prints a path of this machine."""
    name = app.env.docname
    if not name.startswith(_FOLDER):
        return
    text = doctree.astext()
    for place in (str(app.srcdir), str(Path.home()), _TEMPORARY_FOLDER):
        if f"{place}/" in text:
            _logger.warning("the example prints a path of this machine, in %s", place, location=name)
