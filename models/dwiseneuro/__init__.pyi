from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import DwiseNeuroConfig as DwiseNeuroConfig  # public
from .model import DwiseNeuro as DwiseNeuro  # public
from .presets import PRESETS as PRESETS
