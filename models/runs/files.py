"""What the files of a run are called, and what to do about one that is not as it was left."""

from __future__ import annotations

__all__ = [
    "CHECKPOINTS_FOLDER",
    "MODEL_FILE",
    "REQUIRED_FILES",
    "RESTORE",
    "RESTORE_ALL",
    "SHOWN_FILES",
    "SUMMARY_FILE",
    "UNFINISHED",
]

#: The last file that a run gets.
MODEL_FILE = "model.json"
#: Without these it is no run.
REQUIRED_FILES = ("config.json", "data.json", "environment.json", "metrics.jsonl", MODEL_FILE, "model.safetensors")
#: What came of a run, on one page.
SUMMARY_FILE = "summary.md"
#: For people.
SHOWN_FILES = ("config-given.json", "curves.png", SUMMARY_FILE)
#: What the name of a run's folder ends with until it is finished.
UNFINISHED = ".partial"
#: In an unfinished run's folder.
CHECKPOINTS_FOLDER = "checkpoints"
#: The remedy for a file that is missing, damaged or changed.
RESTORE = "restore it, or remove the run and train again"
#: The same for several.
RESTORE_ALL = "restore them, or remove the run and train again"
