"""Text from files, archives and servers as it may be shown: on a terminal, in logs, in artifacts, in pages."""

from __future__ import annotations

import re

__all__ = ["make_lines_visible", "make_visible", "shorten", "show_value"]

# What moves the cursor, colors or hides text, or turns its direction: C0, DEL and C1; Arabic letter mark and the
# directional marks, embeddings, overrides and isolates; line and paragraph separator; byte order mark. Half of a
# surrogate pair cannot be encoded, and stands for a byte in a file's name that is no UTF-8.
_FORMATS = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_IN_A_LINE = re.compile(rf"[\x00-\x1f{_FORMATS}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_FORMATS}]")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def make_visible(text: str) -> str:
    r"""Return a text in one line, with what acts on a terminal or hides text written out.

    The escapes are those of JSON, so that JSON keeps its meaning.

    Parameters
    ----------
    text : str
        A line, or a part of one: a member's name, a header of an answer, the name of a field or file.

    Examples
    --------
    >>> print(make_visible("a.zip\x1b[2J\nsensorium: done"))
    a.zip\u001b[2J\nsensorium: done
    """
    return _IN_A_LINE.sub(_escape, text)


def make_lines_visible(text: str) -> str:
    r"""Return a text of several lines as :func:`make_visible` does each; tabs stay too.

    The text's own parts have to pass :func:`make_visible` when it is composed: here their line breaks count as its own.

    Examples
    --------
    >>> print(make_lines_visible("# Card\n\nby \u202ebal"))
    # Card
    <BLANKLINE>
    by \u202ebal
    """
    return _IN_LINES.sub(_escape, text)


def shorten(text: str, n_characters: int = 4000) -> str:
    """Return a text that is no longer than it should be, or its beginning and how long it is.

    Examples
    --------
    >>> shorten("a" * 60_000, 10)
    'aaaaaaaaaa… (60000 characters)'
    """
    return text if len(text) <= n_characters else f"{text[:n_characters]}… ({len(text)} characters)"


def show_value(value: object) -> object:
    """Return text as :func:`make_visible` does, and anything else as it is: the ``finalize`` of a Jinja environment.

    What a template has marked as HTML itself is no text from outside.
    """
    return make_visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0], f"\\u{ord(match[0]):04x}")
