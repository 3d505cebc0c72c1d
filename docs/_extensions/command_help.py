"""The page with the help of every command, made from the commands themselves."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.docs.rst import generate_rst_docs

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PAGE = "docs/command-help.rst"
_SECTION = re.compile(r"^\.\. _cyclopts-sensorium-([a-z-]+):\n", flags=re.MULTILINE)
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

    # The first section is the program's own, a list of commands; the page's table of contents is one too.
    _, *sections = _SECTION.split(_tidy(generate_rst_docs(commands, heading_level=1)))
    described = [
        f"{section.rstrip()}\n\n{_examples_of(name)}"
        for name, section in zip(sections[::2], sections[1::2], strict=True)
    ]
    text = "\n".join([_TITLE, "=" * len(_TITLE), "", _INTRODUCTION, "", *described])
    page = Path(app.srcdir, _PAGE)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def _examples_of(command: str) -> str:
    """Return the examples that ``--help`` ends with, which cyclopts leaves out here."""
    from flows.cli.examples import EXAMPLES

    if command not in EXAMPLES:
        return ""
    lines = [f"# {meaning}\n{line}" for meaning, line in EXAMPLES[command]]
    block = textwrap.indent("\n".join(lines), "   ")
    return f"**Examples:**\n\n.. code-block:: sh\n\n{block}\n"


def _tidy(text: str) -> str:
    """Show arguments and flags as ``--help`` shows them."""
    # An argument is not given as an option.
    text = re.sub(r"^``([A-Z][A-Z0-9-]*), --[a-z-]+", r"``\1", text, flags=re.MULTILINE)
    # The usage would name the program that builds these pages.
    text = text.replace(" -m sphinx ", " ")
    # A flag that is not given is false.
    return text.replace(" [Default: ``False``]", "").replace(", Default: ``False``]", "]")
