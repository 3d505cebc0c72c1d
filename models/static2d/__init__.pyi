from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import Static2dConfig as Static2dConfig
from .model import Static2d as Static2d
from .presets import PRESETS as PRESETS
