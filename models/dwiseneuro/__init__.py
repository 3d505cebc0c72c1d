"""DwiseNeuro, the winner of SENSORIUM 2023: depth-wise filters over space and time, then a cortex."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
