from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import VivitConfig as VivitConfig  # public
from .model import Vivit as Vivit  # public
from .presets import PRESETS as PRESETS
