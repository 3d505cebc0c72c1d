"""Training: from a preset and session stores to a run."""

from models.training.metrics import EpochMetrics
from models.training.run import Run, load_run
from models.training.training import TrainingReport, find_finished_run, train

__all__ = ["EpochMetrics", "Run", "TrainingReport", "find_finished_run", "load_run", "train"]
