"""The digests of a submission's files, as ``sha256sum`` writes and checks them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sensorium_data.errors import SubmissionError
from sensorium_data.files import LocalObjects, Objects, digest_bytes, digest_file, open_objects, parse_json
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Track
from sensorium_data.store import VerificationReport
from sensorium_data.submission.record import FIXED_RECORD

__all__ = ["holds_manifest", "is_changed", "listed_files", "update_manifest", "verify_submission"]

_REMEDY = "remove these files, and write them again with `sensorium submit` or `sensorium validate --fix`"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\]+)")


def update_manifest(place: Objects, track: Track, zips: Sequence[Mapping[str, Any]]) -> None:
    """Write the digests of a track's zips, record and model card, unless they are there as they should be.

    Parameters
    ----------
    place : Objects
        The submission's folder.
    track : Track
        The track.
    zips : sequence of mapping
        The ``path`` and the ``sha256`` of each zip.
    """
    if not holds_manifest(place, track, zips):
        place.write(_manifest_name(track), _encode(place, track, zips))


def holds_manifest(place: Objects, track: Track, zips: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the digests that :func:`update_manifest` writes are there as they should be."""
    key = _manifest_name(track)
    return place.exists(key) and place.read(key) == _encode(place, track, zips)


def is_changed(place: Objects, track: Track, name: str, data: bytes) -> bool:
    """Whether a file of a submission is not what the digests say; earlier versions wrote none."""
    try:
        return _read_manifest(place, track).get(name) != digest_bytes(data)
    except FileNotFoundError:
        return False
    except SubmissionError:
        return True


def listed_files(place: Objects, track: Track) -> frozenset[str]:
    """Return the names of a track's files that a submission there says that it wrote, whatever became of them."""
    names: set[str] = set()
    with contextlib.suppress(FileNotFoundError, SubmissionError):
        names |= {_manifest_name(track), *_read_manifest(place, track)}
    record = f"submission_{track}.json"
    with contextlib.suppress(SubmissionError):
        zips = _read_record(place, record)
        names |= {record, *zips} if zips else set()
    return frozenset(names)


def verify_submission(url: str, *, progress: Progress = ignore_progress) -> VerificationReport:
    """Compare a submission's files with their digests.

    Whether they are what the competition's server takes is what
    :func:`~sensorium_data.submission.validate_submission` says.

    Parameters
    ----------
    url : str
        The submission's folder, or one of its zips, or those of a corrected copy; a path or any fsspec URL.
    progress : Progress
        Told after each file.

    Raises
    ------
    SubmissionError
        If nothing there says what was written, or what says it is damaged.
    StoreError
        If a URL cannot be read.
    """
    folder, _, name = url.rstrip("/").rpartition("/")
    is_zip = PurePosixPath(name).suffix == ".zip"
    place = open_objects((folder or ".") if is_zip else url.rstrip("/"))
    digests: dict[str, str] = {}
    for track in Track:
        try:
            digests |= _read_manifest(place, track)
        except FileNotFoundError:
            digests |= _read_record(place, f"submission_{track}.json")
    digests |= _read_record(place, FIXED_RECORD)
    if is_zip:
        digests = {name: digests[name]} if name in digests else {}
    if not digests:
        raise SubmissionError(
            "nothing says what was written",
            path=url,
            expected=f"{name} in a submission_<track>.sha256 beside it" if is_zip else "a submission_<track>.sha256",
            remedy="`sensorium validate` checks anybody's files",
        )
    problems = []
    size_bytes = 0
    for n_done, (key, digest) in enumerate(digests.items(), start=1):
        size = place.size(key)
        if size is None:
            problems.append(f"{key}: missing")
        else:
            size_bytes += size
            found = digest_file(place.root / key) if isinstance(place, LocalObjects) else digest_bytes(place.read(key))
            if found != digest:
                problems.append(f"{key}: the digest of its bytes differs")
        progress("verify the submission", n_done, len(digests), n_bytes=size_bytes)
    return VerificationReport("", "sha256", len(digests), size_bytes, tuple(problems), _REMEDY)


def _encode(place: Objects, track: Track, zips: Sequence[Mapping[str, Any]]) -> bytes:
    digests = {str(file["path"]): str(file["sha256"]) for file in zips}
    digests |= {name: digest_bytes(place.read(name)) for name in (f"submission_{track}.json", f"submission_{track}.md")}
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def _manifest_name(track: Track) -> str:
    return f"submission_{track}.sha256"


def _read_manifest(place: Objects, track: Track) -> dict[str, str]:
    """Return the digests by the files' names; FileNotFoundError if there are none."""
    key = _manifest_name(track)
    *lines, rest = place.read(key).decode(errors="replace").split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]
    if not matches or None in matches or rest:
        raise _damaged(place.locate(key), "a line that is no digest and name")
    return {match[2]: match[1] for match in matches if match is not None}


def _read_record(place: Objects, key: str) -> dict[str, str]:
    """Return the digests of the zips that a record has; none without a record."""
    try:
        files = parse_json(place.read(key))["files"]
        return {PurePosixPath(str(file["path"])).name: str(file["sha256"]) for file in files}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(place.locate(key), f"an unreadable record ({error})") from error


def _damaged(path: str, found: str) -> SubmissionError:
    return SubmissionError(
        "the submission's own records are damaged",
        path=path,
        found=found,
        remedy="remove them and the zips, and write the submission again",
    )
