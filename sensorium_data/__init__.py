"""The SENSORIUM 2023 data, from archive to submission; needs neither torch nor Prefect.

The names here are what a notebook starts with; each module documents the rest. They are loaded when they are first
used, so that a command line that only wants to print its help does not wait for xarray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensorium_data.errors import SensoriumError
    from sensorium_data.predictions import from_arrays, open_predictions
    from sensorium_data.predictions_folder import from_folder
    from sensorium_data.scoring import score_predictions
    from sensorium_data.sessions import SESSIONS, Session, Stimulus, Tier, Track, find_session, find_sessions
    from sensorium_data.store import open_session, open_sessions, open_statistics, stored_sessions
    from sensorium_data.submission import write_submission
    from sensorium_data.validation import validate_submission

__all__ = [
    "SESSIONS",
    "SensoriumError",
    "Session",
    "Stimulus",
    "Tier",
    "Track",
    "find_session",
    "find_sessions",
    "from_arrays",
    "from_folder",
    "open_predictions",
    "open_session",
    "open_sessions",
    "open_statistics",
    "score_predictions",
    "stored_sessions",
    "validate_submission",
    "write_submission",
]

_MODULES = {
    "errors": ("SensoriumError",),
    "predictions": ("from_arrays", "open_predictions"),
    "predictions_folder": ("from_folder",),
    "scoring": ("score_predictions",),
    "sessions": ("SESSIONS", "Session", "Stimulus", "Tier", "Track", "find_session", "find_sessions"),
    "store": ("open_session", "open_sessions", "open_statistics", "stored_sessions"),
    "submission": ("write_submission",),
    "validation": ("validate_submission",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    if module == "store":
        # Whoever opens a session here finds the accessor `.sensorium` on it.
        importlib.import_module("sensorium_data.explore")
    value = getattr(importlib.import_module(f"sensorium_data.{module}"), name)
    globals()[name] = value
    return value
