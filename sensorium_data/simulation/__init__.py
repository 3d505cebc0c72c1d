"""Simulated recordings: archives in GIN's layout, with every quirk, and a known truth behind them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
