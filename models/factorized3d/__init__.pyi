from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import Factorized3dConfig as Factorized3dConfig  # public
from .model import Factorized3d as Factorized3d  # public
from .presets import PRESETS as PRESETS
