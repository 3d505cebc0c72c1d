"""Runs that predict together, by a name: a record beside them in the folder of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pydantic

from models.runs.files import UNFINISHED
from models.runs.location import RunsFolder, open_runs
from models.runs.run import Run, load_run
from models.value_problems import describe_problem
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, UnknownNameError, UsageError
from sensorium_data.files import open_objects, read_sealed, seal
from sensorium_data.names import find_name_problem

__all__ = [
    "ENSEMBLE_SUFFIX",
    "Ensemble",
    "EnsembleMember",
    "begin_ensemble",
    "describe_member",
    "expand_ensembles",
    "find_members",
    "list_ensembles",
    "read_ensemble",
    "require_ensemble_name",
    "write_ensemble",
]

#: What the names of records end with.
ENSEMBLE_SUFFIX = ".ensemble.json"
#: Raised whenever a record changes its meaning.
FORMAT_VERSION = 1
_MOST_NAMED = 3


class EnsembleMember(pydantic.BaseModel):
    """A run of an ensemble.

    Attributes
    ----------
    run : str
        Name of its folder.
    identity : str
        :func:`models.runs.identify_run`.
    seed : int
    fold : int or None
        That it is validated on; None without folds.
    weights_sha256 : str or None
        Digest of the weights; None until it is finished.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    run: str
    identity: str
    seed: int
    fold: int | None = None
    weights_sha256: str | None = None


class Ensemble(pydantic.BaseModel):
    """Runs that differ in their seeds or folds. Its record is written before the first one is trained.

    Attributes
    ----------
    format_version : int
        Of the record.
    name : str
    preset : str
        Name of the preset.
    members : tuple of EnsembleMember
        Fold by fold, and those of one fold in the order of their seeds.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    preset: str
    members: tuple[EnsembleMember, ...] = pydantic.Field(min_length=1)


def require_ensemble_name(name: str) -> str:
    """Return a name that a record may have; a :class:`UsageError` says what is wrong with another."""
    problem = find_name_problem(name) or ("it contains '/'" if "/" in name else None)
    if problem is not None:
        raise UsageError("an ensemble cannot be called so", found=f"{name!r}: {problem}", remedy="choose another name")
    return name


def begin_ensemble(runs: str | Path, ensemble: Ensemble) -> str:
    """Write the record of an ensemble that is to be trained, and return its path or URL.

    One of the same members stays as it is.

    Raises
    ------
    RunError
        If there is an ensemble of this name with other members.
    """
    objects, key = open_objects(runs), ensemble.name + ENSEMBLE_SUFFIX
    if not objects.exists(key):
        return write_ensemble(runs, ensemble)
    known = read_ensemble(runs, ensemble.name)
    if [member.identity for member in known.members] != [member.identity for member in ensemble.members]:
        raise RunError(
            "another ensemble has this name",
            path=objects.locate(key),
            found=f"{count_things(len(known.members), 'member')} of {known.preset}, other seeds, folds, settings, data",
            remedy="choose another name with --ensemble, or delete this record; its runs stay",
        )
    return objects.locate(key)


def write_ensemble(runs: str | Path, ensemble: Ensemble) -> str:
    """Write an ensemble's record beside its runs, whole or not at all, and return its path or URL."""
    objects, key = open_objects(runs), ensemble.name + ENSEMBLE_SUFFIX
    objects.write(key, seal(ensemble.model_dump(mode="json")))
    return objects.locate(key)


def read_ensemble(runs: str | Path, name: str) -> Ensemble:
    """Return an ensemble by its name.

    Raises
    ------
    UnknownNameError
        If there is none; the message names the near ones.
    RunError
        If its record is damaged.
    StoreError
        If the folder cannot be read.
    """
    objects, key = open_objects(runs), require_ensemble_name(name) + ENSEMBLE_SUFFIX
    path = objects.locate(key)
    try:
        data = objects.read(key)
    except FileNotFoundError:
        known = list_ensembles(runs)
        raise UnknownNameError.of(
            "ensemble",
            name,
            known,
            otherwise=f"choose one of {', '.join(known)}"
            if known
            else f"there is none in {objects.url}; name its folder of runs with --runs",
        ) from None
    try:
        document, is_sealed = read_sealed(data)
        if not is_sealed:
            raise ValueError("it was changed: its digest is missing")
        ensemble = Ensemble.model_validate(document)
    except pydantic.ValidationError as error:
        raise _damaged(path, describe_problem(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if ensemble.format_version != FORMAT_VERSION or ensemble.name != name:
        raise _damaged(path, f"format {ensemble.format_version} of the ensemble {ensemble.name}")
    return ensemble


def list_ensembles(runs: str | Path) -> tuple[str, ...]:
    """Return the names of the ensembles in a folder of runs; none where the folder cannot be listed."""
    names = (key for key in open_objects(runs).keys() or () if "/" not in key)
    return tuple(sorted(key.removesuffix(ENSEMBLE_SUFFIX) for key in names if key.endswith(ENSEMBLE_SUFFIX)))


def find_members(runs: str | Path, name: str) -> tuple[str, ...]:
    """Return the paths or URLs of an ensemble's runs, all of which are finished and as they were.

    Raises
    ------
    UnknownNameError
        If there is no such ensemble.
    RunError
        If its record is damaged; if a run is unfinished, removed or another one now. The message names them.
    """
    ensemble, folder = read_ensemble(runs, name), open_runs(runs)
    problems: dict[str, list[str]] = {}
    for member, problem in _find_problems(ensemble, folder):
        problems.setdefault(problem, []).append(member.run)
    if problems:
        found = "; ".join(f"{_join(names)}: {problem}" for problem, names in problems.items())
        raise RunError(
            f"the ensemble {name} is not complete",
            path=folder.url,
            found=found,
            expected=f"its {len(ensemble.members)} finished runs",
            remedy="train the ensemble again as before: it trains what is missing, and takes in what has changed",
        )
    return tuple(folder.locate(member.run) for member in ensemble.members)


def expand_ensembles(runs: str | Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return paths or URLs of runs, with the members of an ensemble in the place of its name.

    Parameters
    ----------
    runs : str or Path
        The folder of runs that ensembles are looked for in.
    names : sequence of str
        Of ensembles, and paths or URLs of runs.

    Raises
    ------
    UnknownNameError
        If there is neither an ensemble nor a folder of this name.
    RunError
        As :func:`find_members` does.
    """
    known = list_ensembles(runs) if any("/" not in name for name in names) else ()
    for name in names:
        # An unfinished run of this name is told as one by whoever opens it.
        is_there = "/" in name or name in known or any(Path(name + end).exists() for end in ("", UNFINISHED))
        if not is_there:
            ensembles = f", or one of the ensembles {', '.join(known)}" if known else ""
            raise UnknownNameError.of(
                "run or ensemble",
                name,
                known,
                otherwise=f"give the folder of a run that `sensorium train` printed{ensembles}",
            )
    return tuple(one for name in names for one in (find_members(runs, name) if name in known else (name,)))


def _find_problems(ensemble: Ensemble, folder: RunsFolder) -> Iterator[tuple[EnsembleMember, str]]:
    for member in ensemble.members:
        if find_name_problem(member.run) is not None or "/" in member.run:
            yield member, "no name of a run"
        elif not folder.receive(member.run):
            is_begun = folder.has_unfinished(member.run)
            yield member, "unfinished" if is_begun else "not begun" if member.weights_sha256 is None else "removed"
        else:
            run = load_run(folder.path(member.run))
            if run.identity != member.identity:
                yield member, "another run"
            elif member.weights_sha256 is None:
                yield member, "not recorded as finished"
            elif member.weights_sha256 != run.digest:
                yield member, "trained anew, with other weights"


def describe_member(run: Run) -> EnsembleMember:
    """Return the entry of a finished run."""
    return EnsembleMember(
        run=run.name, identity=run.identity, seed=run.config.seed, fold=run.config.fold, weights_sha256=run.digest
    )


def _join(names: list[str]) -> str:
    shown = names if len(names) <= _MOST_NAMED else [*names[:_MOST_NAMED], f"{len(names) - _MOST_NAMED} more"]
    return ", ".join(shown)


def _damaged(path: str, found: str) -> RunError:
    return RunError(
        "the record of the ensemble is damaged",
        path=path,
        found=found,
        remedy="delete it, and train the ensemble again as before: its finished runs stay",
    )
