"""Training windows cut from session stores: plans, the loader and the trial reader."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
