"""The digest that identifies predictions by their values, however they are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["digest_content", "digest_values"]


def digest_content(digests: Mapping[str, Mapping[int, str]]) -> str:
    """Return the digest of all predicted values from those of each session's trials."""
    listed = {session: sorted(trials.items()) for session, trials in digests.items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def digest_values(values: npt.NDArray[np.float32]) -> str:
    """Return the digest of a trial's predictions, (neuron, time), NaN where nothing is predicted."""
    return hashlib.sha256(np.asarray(values, np.float32).tobytes()).hexdigest()
