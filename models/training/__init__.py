"""Training: from a preset and session stores to a run."""

from models.training.metrics import EpochMetrics
from models.training.run import Run, load_run
from models.training.training import TrainingReport, train

__all__ = ["EpochMetrics", "Run", "TrainingReport", "load_run", "train"]
