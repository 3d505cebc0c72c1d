from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import GruConfig as GruConfig  # public
from .model import Gru as Gru  # public
from .presets import PRESETS as PRESETS
