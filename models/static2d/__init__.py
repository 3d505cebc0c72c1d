"""A convolutional network that sees one frame at a time: the lower reference for models of time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
