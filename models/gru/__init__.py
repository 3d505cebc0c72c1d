"""The recurrent baselines of SENSORIUM 2023: a core for each frame, then a convolutional GRU over time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
