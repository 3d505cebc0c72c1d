"""The competition's Parquet files and zips: writing, validating and repairing them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
