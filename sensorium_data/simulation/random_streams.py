"""Independent random streams by name, so that nothing depends on the order in which work is done."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["random_stream"]


def random_stream(*key: object) -> np.random.Generator:
    """Return the random generator that belongs to a key.

    The same key always gives the same stream; different keys give independent ones. A trial that draws from a
    stream of its own comes out the same whichever thread makes it, and whatever was made before.

    Parameters
    ----------
    *key : object
        What the stream is for, e.g. ``(seed, "noise", session.name, trial)``; told apart by ``repr``.

    Examples
    --------
    >>> float(random_stream(0, "video").random()) == float(random_stream(0, "video").random())
    True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest[:16], "big"))))
