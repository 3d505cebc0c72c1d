from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import Full3dConfig as Full3dConfig
from .model import Full3d as Full3d
from .presets import PRESETS as PRESETS
