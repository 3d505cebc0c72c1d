"""ViV1T: patches of a video, attention over space and then over time, and a readout for each session."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
