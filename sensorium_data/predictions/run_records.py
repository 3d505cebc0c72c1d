"""What the folders of training runs say of them, as plain JSON: a run is described without its software."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium_data.errors import RunError, StoreError
from sensorium_data.files import Objects, open_objects, parse_json

__all__ = ["RunRecord", "find_runs"]

# The last file that a run gets; it names the run by the digest of its weights.
_MODEL_FILE = "model.json"
_DIGEST = "weights_sha256"


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A training run's own description.

    Attributes
    ----------
    path : str
        Its folder, or the URL of it.
    digest : str
        SHA-256 of the weights; predictions name their runs by it.
    model, config, environment : dict
        The content of ``model.json``, ``config.json`` and ``environment.json``: results and digests, the recipe, and
        the versions and the machine.
    sessions : dict of str to str
        The digest of each session that it was trained on, by full name.
    """

    path: str
    digest: str
    model: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    sessions: dict[str, str]


def find_runs(folder: str | Path, digests: Iterable[str]) -> dict[str, RunRecord]:
    """Find runs by the digests of their weights.

    Parameters
    ----------
    folder : path
        The folder of training runs, or a run's own, or any fsspec URL of it; it need not exist.
    digests : iterable of str
        What predictions call their runs.

    Returns
    -------
    dict of str to RunRecord
        Those that were found, by digest.

    Raises
    ------
    RunError
        If a file of such a run is missing or damaged.
    StoreError
        If a URL cannot be read.
    """
    objects = open_objects(folder)
    wanted = set(digests)
    found: dict[str, RunRecord] = {}
    for key in objects.keys() or ():
        run, _, file = key.rpartition("/")
        if file != _MODEL_FILE or "/" in run:
            continue
        files = objects.child(run) if run else objects
        model = _read_json(files, _MODEL_FILE)
        digest = str(model.get(_DIGEST))
        if digest in wanted and digest not in found:
            data = _read_json(files, "data.json")
            try:
                sessions = {str(session["name"]): str(session["digest"]) for session in data["sessions"]}
            except (KeyError, TypeError) as error:
                raise _damaged(files.locate("data.json"), f"no session's name and digest ({error})") from error
            found[digest] = RunRecord(
                path=files.url,
                digest=digest,
                model=model,
                config=_read_json(files, "config.json"),
                environment=_read_json(files, "environment.json"),
                sessions=sessions,
            )
    return found


def _read_json(files: Objects, key: str) -> dict[str, Any]:
    path = files.locate(key)
    try:
        content = parse_json(files.read(key))
    except FileNotFoundError as error:
        raise _damaged(path, "no such file") from error
    except (StoreError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"JSON of a {type(content).__name__}")
    return content


def _damaged(path: str, found: str) -> RunError:
    return RunError("the run is damaged", path=path, found=found, remedy="restore it, or train again")
