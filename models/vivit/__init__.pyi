from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import VivitConfig as VivitConfig
from .model import Vivit as Vivit
from .presets import PRESETS as PRESETS
