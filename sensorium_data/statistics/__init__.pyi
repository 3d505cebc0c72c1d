from .moments import Moments as Moments
from .normalizations import NORMALIZATIONS as NORMALIZATIONS
from .normalizations import open_normalizer as open_normalizer
from .statistics import Normalizer as Normalizer
from .statistics import response_precision as response_precision
from .train_statistics import compute_train_statistics as compute_train_statistics
