"""Weights that other software saved: reading files, matching names, and the formats that are known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
