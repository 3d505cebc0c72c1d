"""The xarray accessors ``.sensorium`` of opened sessions. Importing this package registers them.

Each measure of the accessors is a plain function of this package as well.
"""

import lazy_loader

# Registers both.
import sensorium_data.explore.trees  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
