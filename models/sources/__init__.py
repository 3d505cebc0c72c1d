"""The source files of a model that is no part of this package: found, kept and imported."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
