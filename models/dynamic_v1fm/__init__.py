"""Dynamic-V1FM, second place of SENSORIUM 2023: attention in shifted windows, and readouts of five levels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
