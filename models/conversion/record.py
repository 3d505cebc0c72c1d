"""What a run says of the checkpoint that it was made of."""

from __future__ import annotations

import pydantic

from models.runs import Run
from sensorium_data.errors import RunError
from sensorium_data.files import parse_json

__all__ = ["ImportRecord", "ImportedFile", "read_record", "show_setting"]


class ImportedFile(pydantic.BaseModel):
    """A file that a run was made of.

    Attributes
    ----------
    name : str
        Without its folder.
    size_bytes : int
    sha256 : str
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    size_bytes: int
    sha256: str


class ImportRecord(pydantic.BaseModel):
    """``imported`` in a run's ``environment.json``.

    Attributes
    ----------
    format : str
        Of the checkpoint.
    files : tuple of ImportedFile
    sessions : mapping of str to str
        Full name of each session, by what the checkpoint calls it.
    absent : tuple of str
        Names of what the format may have, and the checkpoint lacks.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    format: str
    files: tuple[ImportedFile, ...]
    sessions: dict[str, str]
    absent: tuple[str, ...] = ()


def read_record(run: Run) -> ImportRecord | None:
    """Return what a run says of its checkpoint; None for a run that was trained here.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    path = run.path / "environment.json"
    try:
        record = parse_json(path.read_bytes()).get("imported")
        return None if record is None else ImportRecord.model_validate(record)
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            "the run does not say what it was imported from",
            path=path,
            found=(str(error).splitlines() or [""])[0],
            remedy="import the checkpoint again, into another folder",
        ) from error


def show_setting(value: object) -> str:
    """Return the value of a setting as ``--set`` takes it.

    Examples
    --------
    >>> show_setting((1, 2)), show_setting(False)
    ('1,2', 'false')
    """
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
