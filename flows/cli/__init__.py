"""The ``sensorium`` command: a module a group of commands.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
