"""Runs that outlive an absence of their Prefect server: what is asked of it, and the watch over a run's state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
