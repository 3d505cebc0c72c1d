"""The full 3D convolutional model of the SENSORIUM 2023 starter kit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
