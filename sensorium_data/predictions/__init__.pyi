from .averaging import choose_weights as choose_weights
from .averaging import parse_weights as parse_weights
from .cleaning import find_predictions_leftovers as find_predictions_leftovers
from .folder import from_folder as from_folder  # public
from .predictions import ArraysReport as ArraysReport  # public
from .predictions import create_predictions as create_predictions
from .predictions import from_arrays as from_arrays  # public
from .reader import find_predictions as find_predictions
from .reader import open_predictions as open_predictions  # public
from .reader import predicted_sessions as predicted_sessions
from .reader import predictions_attributes as predictions_attributes
from .reader import verify_predictions as verify_predictions  # public
from .run_records import RUN_KIND as RUN_KIND
from .run_records import RunRecord as RunRecord
from .run_records import find_runs as find_runs
from .run_records import read_run_ledger as read_run_ledger
from .run_records import require_run_ledger as require_run_ledger
from .run_records import verify_run as verify_run
from .standardized import StandardizedPredictions as StandardizedPredictions
from .writer import PredictionsWriter as PredictionsWriter
