"""The digests of a submission's files, as ``sha256sum`` writes and checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sensorium_data.errors import StoreError, SubmissionError
from sensorium_data.files import (
    LocalObjects,
    Objects,
    describe_damage,
    digest_bytes,
    open_objects,
    parse_json,
    write_confirmed,
)
from sensorium_data.frames import zip_members
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Track
from sensorium_data.store import VerificationReport
from sensorium_data.submission.record import FIXED

__all__ = [
    "holds_manifest",
    "is_changed",
    "is_manifest",
    "is_submission_file",
    "manifest_digests",
    "names_record",
    "update_manifest",
    "verify_submission",
]

_REMEDY = "move what is left of these files, and write the submission again"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\]+)")


def update_manifest(place: Objects, stem: str, zips: Sequence[Mapping[str, Any]]) -> None:
    """Write the digests of zips, their record and the model card, unless they are there as they should be.

    Parameters
    ----------
    place : Objects
        The submission's folder.
    stem : str
        The track, or :data:`~sensorium_data.submission.record.FIXED` for a corrected copy.
    zips : sequence of mapping
        The ``path`` and the ``sha256`` of each zip.
    """
    if not holds_manifest(place, stem, zips):
        write_confirmed(place, _manifest_name(stem), _encode(place, stem, zips))


def holds_manifest(place: Objects, stem: str, zips: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the digests that :func:`update_manifest` writes are there as they should be."""
    key = _manifest_name(stem)
    return place.exists(key) and place.read(key) == _encode(place, stem, zips)


def is_changed(place: Objects, stem: str, name: str, data: bytes) -> bool:
    """Whether a file of a submission is not what the digests say; earlier versions wrote none."""
    try:
        return _read_manifest(place, stem).get(name) != digest_bytes(data)
    except FileNotFoundError:
        return False
    except SubmissionError:
        return True


def is_manifest(place: Objects, stem: str) -> bool:
    """Whether what has the name of a list of digests is one, or nothing has it."""
    try:
        _read_manifest(place, stem)
    except FileNotFoundError:
        return True
    except (StoreError, SubmissionError):
        return False
    return True


def names_record(place: Objects, stem: str) -> bool:
    """Whether the list of digests names the record of a submission: nobody else's list does."""
    return f"submission_{stem}.json" in _listed(place, stem)


def manifest_digests(place: Objects, stem: str, name: str) -> set[str]:
    """Return the digest that the list of digests has for a file; none without a list, or if it cannot be read."""
    listed = _listed(place, stem)
    return {listed[name]} if name in listed else set()


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
    problems = []
    for stem in (*map(str, Track), FIXED):
        zips = _read_record(place, f"submission_{stem}.json")
        try:
            listed = _read_manifest(place, stem)
            expected = (*zips, *_own_files(stem))
            problems += [f"{_manifest_name(stem)}: does not name {name}" for name in expected if name not in listed]
            problems += [
                f"submission_{stem}.json: has another digest of {name} than {_manifest_name(stem)}"
                for name, digest in zips.items()
                if listed.get(name, digest) != digest
            ]
        except FileNotFoundError:
            listed = {}
            problems += [f"{_manifest_name(stem)}: missing"] if zips else []
        digests |= zips | listed
    if is_zip:
        digests = {name: digests[name]} if name in digests else {}
        problems = []
    if not digests:
        raise SubmissionError(
            "nothing says what was written",
            path=url,
            expected=f"{name} in a submission_<track>.sha256 beside it" if is_zip else "a submission_<track>.sha256",
            remedy="see `sensorium validate --help`, which checks anybody's files",
        )
    size_bytes = 0
    for n_done, (key, digest) in enumerate(digests.items(), start=1):
        try:
            size_bytes += place.size(key) or 0
            if place.digest(key) != digest:
                problems.append(f"{key}: the digest of its bytes differs")
        except FileNotFoundError:
            problems.append(f"{key}: missing")
        except StoreError as error:
            # A server that is away says nothing of the file.
            if not isinstance(place, LocalObjects):
                raise
            problems.append(f"{key}: {error.problem}: found {error.found}")
        progress("verify the submission", n_done, len(digests), n_bytes=size_bytes)
    return VerificationReport("", "sha256", len(digests), size_bytes, tuple(problems), _REMEDY)


def _encode(place: Objects, stem: str, zips: Sequence[Mapping[str, Any]]) -> bytes:
    digests = {str(file["path"]): str(file["sha256"]) for file in zips}
    digests |= {name: digest_bytes(place.read(name)) for name in _own_files(stem)}
    # Somebody may have added files of their own.
    digests |= {name: digest for name, digest in _listed(place, stem).items() if not _may_write(stem, name)}
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def _listed(place: Objects, stem: str) -> dict[str, str]:
    try:
        return _read_manifest(place, stem)
    except (FileNotFoundError, SubmissionError):
        return {}


def _may_write(stem: str, name: str) -> bool:
    """Whether a submission writes files of this name."""
    zips = {zip_name for track in Track if stem in (track, FIXED) for zip_name in zip_members(track)}
    return name in zips or name in _own_files(stem)


def is_submission_file(stem: str, name: str) -> bool:
    """Whether the writer of a track's submission, or of a corrected copy, writes files of this name.

    Parameters
    ----------
    stem : str
        The track, or :data:`~sensorium_data.submission.record.FIXED` for a corrected copy, which has all tracks' zips.
    name : str
        The file's.
    """
    return _may_write(stem, name) or name == _manifest_name(stem)


def _own_files(stem: str) -> tuple[str, ...]:
    """Return the names of what lies beside the zips and has its digest in the list."""
    card = () if stem == FIXED else (f"submission_{stem}.md",)
    return (f"submission_{stem}.json", *card)


def _manifest_name(stem: str) -> str:
    return f"submission_{stem}.sha256"


def _read_manifest(place: Objects, stem: str) -> dict[str, str]:
    """Return the digests by the files' names; FileNotFoundError if there are none."""
    key = _manifest_name(stem)
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
        raise _damaged(place.locate(key), f"an unreadable record ({describe_damage(error)})") from error


def _damaged(path: str, found: str) -> SubmissionError:
    return SubmissionError(
        "the submission's own records are damaged",
        path=path,
        found=found,
        remedy="remove them and the zips, and write the submission again",
    )
