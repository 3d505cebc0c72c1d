"""Models of the visual cortex, their training and their predictions; needs torch, never Prefect.

:mod:`models.registry` names the presets and builds models, :mod:`models.training` and :mod:`models.prediction` use
them. Each model has a folder of its own; :mod:`models.layers` holds what several of them share. What a model of one's
own is made of is offered here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
