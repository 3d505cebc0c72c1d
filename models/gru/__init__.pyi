from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import GruConfig as GruConfig
from .model import Gru as Gru
from .presets import PRESETS as PRESETS
