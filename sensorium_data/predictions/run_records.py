"""What the folders of training runs say of them, as plain JSON: a run is described without its software."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium_data.errors import RunError, StoreError
from sensorium_data.files import Objects, describe_damage, digest_bytes, open_objects, parse_json
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.store import LEDGER_KEY, ObjectLedger, VerificationReport, verify_objects

__all__ = ["RUN_KIND", "RunRecord", "find_runs", "read_run_ledger", "require_run_ledger", "verify_run"]

#: What the ledger of a run is a ledger of.
RUN_KIND = "run"

# The last file that a run gets; it names the run by the digest of its weights.
_MODEL_FILE = "model.json"
_DIGEST = "weights_sha256"
_FIRST_VERSION_WITH_LEDGER = 2
_REMEDY = "restore the damaged files, or remove the run and train again"
# What model.json has digests of, in every version.
_DIGESTED_FILES = {"model.safetensors": _DIGEST, "config.json": "config_sha256", "data.json": "data_sha256"}


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
        ledger = read_run_ledger(files)
        model = _read_json(files, _MODEL_FILE, ledger)
        require_run_ledger(files, ledger, model.get("format_version"))
        digest = str(model.get(_DIGEST))
        if digest in wanted and digest not in found:
            data = _read_json(files, "data.json", ledger)
            try:
                sessions = {str(session["name"]): str(session["digest"]) for session in data["sessions"]}
            except (KeyError, TypeError) as error:
                raise _damaged(
                    files.locate("data.json"), f"no session's name and digest ({describe_damage(error)})"
                ) from error
            found[digest] = RunRecord(
                path=files.url,
                digest=digest,
                model=model,
                config=_read_json(files, "config.json", ledger),
                environment=_read_json(files, "environment.json", ledger),
                sessions=sessions,
            )
    return found


def read_run_ledger(files: Objects) -> ObjectLedger | None:
    """Return the ledger of a run's folder; None for a run of an earlier version.

    Raises
    ------
    RunError
        If it is damaged.
    """
    try:
        return ObjectLedger.read(files.read(LEDGER_KEY), RUN_KIND)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(files.locate(LEDGER_KEY), str(error)) from error


def require_run_ledger(files: Objects, ledger: ObjectLedger | None, format_version: object) -> None:
    """Raise a :class:`RunError` if a run has no ledger, and its version of ``model.json`` comes with one."""
    if ledger is None and isinstance(format_version, int) and format_version >= _FIRST_VERSION_WITH_LEDGER:
        raise _damaged(files.locate(LEDGER_KEY), "no such file")


def verify_run(url: str, *, jobs: int = 4, progress: Progress = ignore_progress) -> VerificationReport:
    """Read every file of a training run and compare it with the ledger.

    A run of an earlier version has none: there the files are compared that ``model.json`` has digests of.

    Parameters
    ----------
    url : str
        The run's folder, or any fsspec URL of it.
    jobs : int
        Files read at once.
    progress : Progress
        Told after each file.

    Raises
    ------
    RunError
        If there is no run, or its ledger or ``model.json`` is damaged.
    """
    files = open_objects(url)
    ledger = read_run_ledger(files)
    if ledger is not None:
        return verify_objects(files, ledger, remedy=_REMEDY, jobs=jobs, progress=progress, label="verify the run")
    model = _read_json(files, _MODEL_FILE, None)
    require_run_ledger(files, ledger, model.get("format_version"))
    problems, size_bytes = [], 0
    for n_done, (key, name) in enumerate(_DIGESTED_FILES.items(), start=1):
        try:
            data = files.read(key)
            size_bytes += len(data)
            if digest_bytes(data) != model.get(name):
                problems.append(f"{key}: the digest of its bytes differs")
        except FileNotFoundError:
            problems.append(f"{key}: missing")
        progress("verify the run", n_done, len(_DIGESTED_FILES), n_bytes=size_bytes)
    return VerificationReport("", _MODEL_FILE, len(_DIGESTED_FILES), size_bytes, tuple(problems), _REMEDY)


def _read_json(files: Objects, key: str, ledger: ObjectLedger | None) -> dict[str, Any]:
    path = files.locate(key)
    try:
        data = files.read(key)
        content = parse_json(data)
    except FileNotFoundError as error:
        raise _damaged(path, "no such file") from error
    except (StoreError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"JSON of a {type(content).__name__}")
    if ledger is not None:
        stored = ledger.objects.get(key)
        damage = "not in the ledger" if stored is None else stored.find_difference(data)
        if damage is not None:
            raise _damaged(path, damage)
    return content


def _damaged(path: str, found: str) -> RunError:
    return RunError("the run is damaged", path=path, found=found, remedy=_REMEDY)
