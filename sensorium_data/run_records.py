"""What the folders of training runs say of them, as plain JSON: a run is described without its software."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium_data.errors import RunError

__all__ = ["RunRecord", "find_runs"]

# The last file that a run gets; it names the run by the digest of its weights.
_MODEL_FILE = "model.json"
_DIGEST = "weights_sha256"


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A training run's own description.

    Attributes
    ----------
    path : Path
        Its folder.
    digest : str
        SHA-256 of the weights; predictions name their runs by it.
    model, config, environment : dict
        The content of ``model.json``, ``config.json`` and ``environment.json``: results and digests, the recipe, and
        the versions and the machine.
    sessions : dict of str to str
        The digest of each session that it was trained on, by full name.
    """

    path: Path
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
        The folder of training runs, or a run's own; it need not exist.
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
    """
    folder = Path(folder)
    wanted = set(digests)
    found: dict[str, RunRecord] = {}
    for path in sorted([*folder.glob(_MODEL_FILE), *folder.glob(f"*/{_MODEL_FILE}")]):
        model = _read_json(path)
        digest = str(model.get(_DIGEST))
        if digest in wanted and digest not in found:
            data = _read_json(path.parent / "data.json")
            try:
                sessions = {str(session["name"]): str(session["digest"]) for session in data["sessions"]}
            except (KeyError, TypeError) as error:
                raise _damaged(path.parent / "data.json", f"no session's name and digest ({error})") from error
            found[digest] = RunRecord(
                path=path.parent,
                digest=digest,
                model=model,
                config=_read_json(path.parent / "config.json"),
                environment=_read_json(path.parent / "environment.json"),
                sessions=sessions,
            )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _damaged(path, "no such file") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"JSON of a {type(content).__name__}")
    return content


def _damaged(path: Path, found: str) -> RunError:
    return RunError("the run is damaged", path=path, found=found, remedy="restore it, or train again")
