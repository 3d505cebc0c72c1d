"""What tests of this project, and of stores and archives made with it, are built from.

:mod:`~sensorium_data.testing.server` serves a folder over HTTP, with byte ranges, and
:mod:`~sensorium_data.testing.faults` makes that server misbehave; :mod:`~sensorium_data.testing.disk` makes the disk
fail, or the process die, at the n-th step. :mod:`~sensorium_data.testing.recordings` makes small archives array by
array. Nothing here is imported by the rest of the package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
