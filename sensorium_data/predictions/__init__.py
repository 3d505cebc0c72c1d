"""The predictions store: made from runs, arrays or a folder of files, with the recordings' coordinates."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
