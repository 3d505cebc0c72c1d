from .checkpoint import CHECKPOINTS as CHECKPOINTS
from .config import DynamicV1fmConfig as DynamicV1fmConfig  # public
from .model import DynamicV1fm as DynamicV1fm  # public
from .presets import PRESETS as PRESETS
from .presets import list_ensemble as list_ensemble  # public
