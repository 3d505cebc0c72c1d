"""Commands in messages, as they can be typed."""

from __future__ import annotations

import shlex

__all__ = ["quote_command"]


def quote_command(*words: object) -> str:
    """Return a command of this software between backquotes, each word quoted for a shell where it needs to be.

    Parameters
    ----------
    *words : object
        What follows the command's name.

    Examples
    --------
    >>> quote_command("ingest", "F", "--store", "my store")
    "`sensorium ingest F --store 'my store'`"
    """
    return f"`{shlex.join(('sensorium', *map(str, words)))}`"
