from .checkpoint import load_reference as load_reference
from .checkpoint import to_reference as to_reference
from .config import Factorized3dConfig as Factorized3dConfig
from .model import Factorized3d as Factorized3d
from .presets import PRESETS as PRESETS
