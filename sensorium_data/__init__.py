"""The SENSORIUM 2023 data, from archive to submission; needs neither torch nor Prefect.

The names here are what a notebook starts with. The packages below hold the rest, one for each step; each
says what it offers in its own ``__init__.pyi``. Names are loaded when they are first used, so that a command line that
only prints its help does not wait for xarray.
"""

import importlib

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Whoever opens a recording through one of these finds the accessor ``.sensorium`` on it.
_OPENS_RECORDINGS = ("load_sample", "open_session", "open_sessions", "open_store")


def __getattr__(name: str) -> object:
    if name in _OPENS_RECORDINGS:
        importlib.import_module("sensorium_data.explore")
    return _load(name)
