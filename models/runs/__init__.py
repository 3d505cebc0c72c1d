"""A training run on disk: its folder, checkpoints, weights and metrics, at any fsspec URL."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
