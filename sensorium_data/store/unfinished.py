"""What an unfinished conversion of a session keeps, and what its objects are called."""

from __future__ import annotations

import re

from sensorium_data.files import WorkingFolder, parse_json
from sensorium_data.store.groups import is_group_key
from sensorium_data.store.template import METADATA_KEY

__all__ = ["IDENTITY_KEY", "SESSION_GROUP", "STATISTICS_KEY", "UNFINISHED_GROUP", "UNFINISHED_SESSION"]

#: What a conversion writes first: what all that it keeps was made with.
IDENTITY_KEY = "identity.json"
#: The record of the finished statistics.
STATISTICS_KEY = "statistics.json"
#: The folder of a local store's unfinished conversion that gets the session's name.
UNFINISHED_GROUP = "group"

_RECORD_KEY = re.compile(
    rf"{re.escape(IDENTITY_KEY)}|{re.escape(STATISTICS_KEY)}|trials/(?:[0-9]+\.npz|[0-9a-f]{{16}}\.zip)"
)


def _is_identity(data: bytes) -> bool:
    try:
        return bool({"schema_version", "converter_version"} <= parse_json(data).keys())
    except (ValueError, AttributeError):
        return False


def _is_group(data: bytes) -> bool:
    try:
        return "session" in parse_json(data)["attributes"]
    except (ValueError, KeyError, TypeError):
        return False


def _is_made(key: str) -> bool:
    folder, _, rest = key.partition("/")
    return _RECORD_KEY.fullmatch(key) is not None or (folder == UNFINISHED_GROUP and is_group_key(rest))


#: The folder of a session under a store's folder for unfinished work.
UNFINISHED_SESSION = WorkingFolder(marker=IDENTITY_KEY, is_marker=_is_identity, makes=_is_made)

#: A session's group. In an object store it is made where it stays.
SESSION_GROUP = WorkingFolder(marker=METADATA_KEY, is_marker=_is_group, makes=is_group_key)
