from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import Static2dConfig as Static2dConfig  # public
from .model import Static2d as Static2d  # public
from .presets import PRESETS as PRESETS
