from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import DwiseNeuroConfig as DwiseNeuroConfig
from .model import DwiseNeuro as DwiseNeuro
from .presets import PRESETS as PRESETS
