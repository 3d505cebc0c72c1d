from .coverage import StatisticsCoverage as StatisticsCoverage  # public
from .coverage import describe_coverage as describe_coverage
from .coverage import measure_coverage as measure_coverage  # public
from .coverage import read_coverage as read_coverage
from .moments import Moments as Moments
from .normalizations import NORMALIZATIONS as NORMALIZATIONS  # public
from .normalizations import open_normalizer as open_normalizer  # public
from .statistics import Normalizer as Normalizer  # public
from .statistics import response_precision as response_precision
from .train_statistics import compute_train_statistics as compute_train_statistics  # public
