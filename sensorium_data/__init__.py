"""The SENSORIUM 2023 data, from archive to submission; needs neither torch nor Prefect.

The names here are what a notebook starts with; each module documents the rest.
"""

import sensorium_data.explore  # noqa: F401 (registers the accessor `.sensorium` with xarray)
from sensorium_data.errors import SensoriumError
from sensorium_data.sessions import SESSIONS, Session, Stimulus, Tier, Track, find_session, find_sessions
from sensorium_data.store import open_session, open_sessions, open_statistics, stored_sessions

__all__ = [
    "SESSIONS",
    "SensoriumError",
    "Session",
    "Stimulus",
    "Tier",
    "Track",
    "find_session",
    "find_sessions",
    "open_session",
    "open_sessions",
    "open_statistics",
    "stored_sessions",
]
