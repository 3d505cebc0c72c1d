"""What the files of a run are called, and what to do about one that is not as it was left."""

from __future__ import annotations

import re

from models.sources import CODE_FOLDER
from sensorium_data.errors import StoreError
from sensorium_data.files import Objects, WorkingFolder, digest_bytes, parse_json
from sensorium_data.store import LEDGER_KEY

__all__ = [
    "CHECKPOINTS_FOLDER",
    "CHECKPOINT_FILE",
    "GIVEN_FILE",
    "IMPORTED_FILE",
    "MODEL_FILE",
    "REQUIRED_FILES",
    "RESTORE",
    "RESTORE_ALL",
    "SHOWN_FILES",
    "SUMMARY_FILE",
    "UNFINISHED",
    "UNFINISHED_RUN",
]

#: The last file that a run gets.
MODEL_FILE = "model.json"
#: Without these it is no run.
REQUIRED_FILES = ("config.json", "data.json", "environment.json", "metrics.jsonl", MODEL_FILE, "model.safetensors")
#: What came of a run, on one page.
SUMMARY_FILE = "summary.md"
#: The first file that a run gets: the config, as it was asked for.
GIVEN_FILE = "config-given.json"
#: Numbers of an imported checkpoint that are no part of the model; only a run of such a checkpoint has it, if any.
IMPORTED_FILE = "imported.safetensors"
#: For people.
SHOWN_FILES = (GIVEN_FILE, "curves.png", SUMMARY_FILE)
#: What the name of a run's folder ends with until it is finished.
UNFINISHED = ".partial"
#: In an unfinished run's folder.
CHECKPOINTS_FOLDER = "checkpoints"
#: What the names of all files there match.
CHECKPOINT_FILE = re.compile(r"epoch-\d{5}-step-\d{9}\.(?:json|safetensors)|best-epoch-\d{5}\.safetensors")
#: The remedy for a file that is missing, damaged or changed.
RESTORE = "restore it, or remove the run and train again"
#: The same for several.
RESTORE_ALL = "restore them, or remove the run and train again"

_FILES = frozenset({*REQUIRED_FILES, *SHOWN_FILES, IMPORTED_FILE, LEDGER_KEY})
_BELOW = re.compile(
    rf"{CHECKPOINTS_FOLDER}/(?:{CHECKPOINT_FILE.pattern})|{CODE_FOLDER}/(?:[^/]+/)*[^/]+\.py"
    r"|tensorboard/events\.out\.tfevents\.\d+\.[^/]+\.\d+\.\d+"
)
# The last is there if the class of the model is the user's own.
_GIVEN = {"preset", "settings", "model"}


def _is_given_config(data: bytes) -> bool:
    try:
        return bool({"preset", "settings"} <= parse_json(data).keys() <= _GIVEN)
    except (ValueError, AttributeError):
        return False


def _is_as_made(run: Objects, key: str) -> bool:
    """Whether a file of code is the one that the run's config names; users put others beside it, and change it."""
    if not key.startswith(f"{CODE_FOLDER}/"):
        return True
    try:
        code = parse_json(run.read("config.json"))["model"]["code"]
        return bool(digest_bytes(run.read(key)) == code[key.removeprefix(f"{CODE_FOLDER}/")])
    except (FileNotFoundError, StoreError, ValueError, KeyError, TypeError):
        return False


#: The folder that a run is trained in.
UNFINISHED_RUN = WorkingFolder(
    marker=GIVEN_FILE,
    is_marker=_is_given_config,
    is_as_made=_is_as_made,
    makes=lambda key: key in _FILES or _BELOW.fullmatch(key) is not None,
    folders=frozenset({CHECKPOINTS_FOLDER, CODE_FOLDER, "tensorboard"}),
    # But for those of code, whose names users choose.
    holds_no_folders=lambda key: not key.startswith(f"{CODE_FOLDER}/"),
)
