"""The page with the help of every command, made from the commands themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.docs.rst import generate_rst_docs

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PAGE = "docs/command-help.rst"
_TITLE = "Help of each command"
_INTRODUCTION = """\
What ``sensorium --help`` and the ``--help`` of each command print. :doc:`commands` explains the options with more
context, and says what the exit status means.
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", _write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_page(app: Sphinx) -> None:
    from flows.cli import app as commands

    generated = generate_rst_docs(commands, heading_level=1)
    # The first section is the program's own, a list of commands; the page's table of contents is one too.
    first = generated.index(".. _cyclopts-sensorium-")
    text = "\n".join([_TITLE, "=" * len(_TITLE), "", _INTRODUCTION, "", _tidy(generated[first:])])
    page = Path(app.srcdir, _PAGE)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def _tidy(text: str) -> str:
    """Show arguments and flags as ``--help`` shows them."""
    # An argument is not given as an option.
    text = re.sub(r"^``([A-Z][A-Z0-9-]*), --[a-z-]+", r"``\1", text, flags=re.MULTILINE)
    # cyclopts names the module that this process runs, as `python -m` was called.
    text = text.replace(" -m sphinx", "")
    # A flag that is not given is false.
    return text.replace(" [Default: ``False``]", "").replace(", Default: ``False``]", "]")
