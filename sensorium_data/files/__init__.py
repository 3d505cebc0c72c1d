"""Bytes anywhere: objects at fsspec URLs, HTTP sources, the local cache and parts of downloads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
