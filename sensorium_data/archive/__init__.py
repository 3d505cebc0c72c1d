"""A session's zip archive, read in place or downloaded, or its unpacked folder; and where archives are published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
