"""What an unfinished predictions store consists of, and what its objects are called."""

from __future__ import annotations

import re

from sensorium_data import schema
from sensorium_data.files import WorkingFolder, parse_json
from sensorium_data.predictions.written_trials import JOURNAL_KEY
from sensorium_data.sessions import is_full_name
from sensorium_data.store import LEDGER_KEY, METADATA_KEY

__all__ = ["COORDINATE_NAMES", "PREDICTIONS_KIND", "UNFINISHED_PREDICTIONS", "is_whole"]

#: The root attribute ``kind`` of every predictions store.
PREDICTIONS_KIND = "predictions"
#: The session's coordinates that a predictions store carries along; the last three are its dimensions.
COORDINATE_NAMES = ("tier", "n_frames", "movie", "stimulus", "valid", "trial", "neuron", "time")

_NODES = "|".join((schema.PREDICTIONS.name, *COORDINATE_NAMES))
_OF_ROOT = frozenset({METADATA_KEY, LEDGER_KEY})
_OF_SESSION = re.compile(
    rf"{re.escape(JOURNAL_KEY)}|(?:(?:{_NODES})/)?{re.escape(METADATA_KEY)}|(?:{_NODES})/c(?:/\d+)*"
)


def _is_metadata(data: bytes) -> bool:
    try:
        return bool(parse_json(data)["attributes"]["kind"] == PREDICTIONS_KIND)
    except (ValueError, KeyError, TypeError):
        return False


def is_whole(metadata: bytes) -> bool:
    """Whether a root's metadata are those of predictions that are finished."""
    try:
        return "content_digest" in parse_json(metadata)["attributes"]
    except (ValueError, KeyError, TypeError):
        return False


def _is_made(key: str) -> bool:
    session, _, rest = key.partition("/")
    return key in _OF_ROOT or (_OF_SESSION.fullmatch(rest) is not None and is_full_name(session))


#: The folder in which predictions are written until they are whole.
UNFINISHED_PREDICTIONS = WorkingFolder(marker=METADATA_KEY, is_marker=_is_metadata, makes=_is_made)
