from .cleaning import find_submission_leftovers as find_submission_leftovers
from .fetched import fetch_files as fetch_files
from .findings import ValidationReport as ValidationReport  # public
from .manifest import verify_submission as verify_submission  # public
from .reader import parquet_reader as parquet_reader
from .repair import repair_submission as repair_submission  # public
from .validation import validate_submission as validate_submission  # public
from .write import SubmissionReport as SubmissionReport  # public
from .write import write_submission as write_submission  # public
from .writer import PredictionsTable as PredictionsTable
from .writer import SubmissionRow as SubmissionRow
from .writer import write_zip as write_zip
