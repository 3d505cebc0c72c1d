from .findings import ValidationReport as ValidationReport
from .repair import repair_submission as repair_submission
from .validation import validate_submission as validate_submission
from .write import SubmissionReport as SubmissionReport
from .write import write_submission as write_submission
from .writer import PredictionsTable as PredictionsTable
from .writer import SubmissionRow as SubmissionRow
from .writer import write_zip as write_zip
