from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import Full3dConfig as Full3dConfig  # public
from .model import Full3d as Full3d  # public
from .presets import PRESETS as PRESETS
