from .benchmark import BenchmarkReport as BenchmarkReport  # public
from .benchmark import benchmark_sessions as benchmark_sessions
from .benchmark import run_benchmark as run_benchmark  # public
from .benchmark_page import require_benchmark_writable as require_benchmark_writable
from .benchmark_page import write_benchmark as write_benchmark  # public
from .bootstrap import LEAST_RESAMPLES as LEAST_RESAMPLES
from .bootstrap import Bootstrap as Bootstrap  # public
from .correlation import CorrelationAccumulator as CorrelationAccumulator
from .leaderboard import Leaderboard as Leaderboard  # public
from .leaderboard import Reference as Reference  # public
from .leaderboard import compare_predictions as compare_predictions  # public
from .leaderboard import name_entries as name_entries
from .movie_products import LEAST_SIGNAL_POWER as LEAST_SIGNAL_POWER
from .oracle_correlation import measure_oracle_correlation as measure_oracle_correlation  # public
from .pictures import PICTURE_FILE as PICTURE_FILE
from .pictures import draw_scores as draw_scores  # public
from .reliability import OracleReliability as OracleReliability
from .reliability import RepeatMoments as RepeatMoments
from .scoring import score_predictions as score_predictions  # public
from .table import FURTHER_SCORES as FURTHER_SCORES
from .table import NEURONS_FILE as NEURONS_FILE
from .table import SCORES as SCORES
from .table import ScoreTable as ScoreTable  # public
from .trials import ScoredSession as ScoredSession
from .withheld import join_withheld as join_withheld
