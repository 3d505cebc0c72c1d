"""Let long names break after underscores, dots and slashes, where a reader would break them.

A name that cannot break makes a narrow page, or a column of a table, as wide as itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["break_names"]

_WORD = re.compile(r'<span class="pre">([^<>]*)</span>')
_BREAK = re.compile(r"(?<=[\w)\]])([_./=:,(\[]+)(?=\w|&)")
#: Shorter names fit.
_LONGEST = 16


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", _break)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def break_names(page: str) -> str:
    """Return a page's HTML with opportunities to break in its long names."""
    return _WORD.sub(_break_word, page)


def _break_word(word: re.Match[str]) -> str:
    if len(word[1]) <= _LONGEST:
        return word[0]
    parts = _BREAK.sub(r"\1<wbr>", word[1])
    return f'<span class="pre">{parts}</span>'


def _break(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object) -> None:
    if "body" in context:
        context["body"] = break_names(context["body"])
