"""Which trials show the same movie, what kind of stimulus it is, and what leaks between tiers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
