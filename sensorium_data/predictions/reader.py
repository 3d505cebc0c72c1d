"""Finished predictions stores: what made them, their values, and whether they are as they were written.

Every reader of predictions comes through here. What is read is compared with the store's ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import PredictionsError
from sensorium_data.files import LocalObjects, Objects, describe_damage, open_objects, parse_json
from sensorium_data.predictions.content_digest import digest_content, digest_values
from sensorium_data.predictions.unfinished import PREDICTIONS_KIND
from sensorium_data.predictions.writer import TRIALS_PREFIX, trial_key
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.schema import READABLE_SCHEMA_VERSIONS
from sensorium_data.sessions import Session, find_session
from sensorium_data.store import (
    LEDGER_KEY,
    METADATA_KEY,
    CheckedStore,
    ObjectLedger,
    VerificationReport,
    make_portable,
    survive_forks,
    verify_objects,
)

__all__ = [
    "find_predictions",
    "open_predictions",
    "predicted_sessions",
    "predictions_attributes",
    "verify_predictions",
]

_NO_PREDICTIONS = "no predictions store"
# Of a digest, in messages.
_SHOWN_DIGITS = 12
_REMEDY = "remove the predictions, and make them again"

# Predictions of earlier versions of the schema have no ledger.
_FIRST_VERSION_WITH_LEDGER = 3


def find_predictions(
    url: str,
    identity: str,
    *,
    tiers: Collection[str] = (),
    sessions: Collection[str] = (),
    shares: Mapping[str, float] | None = None,
    precision: str | None = None,
) -> bool:
    """Return whether the predictions with this identity are finished.

    On a local disk the sizes of all objects are compared with the ledger. Their content is compared when they are read.

    Parameters
    ----------
    url : str
        The predictions store.
    identity : str
        As it was given to :func:`~sensorium_data.predictions.create_predictions`.
    tiers, sessions : collection of str
        What would be predicted, sessions by full name. They are part of the identity; the error says in which of them
        other predictions differ.
    shares : mapping of str to float, optional
        How much each run would count, by its digest. Like ``tiers``.
    precision : str, optional
        The numbers that models would compute with. Like ``tiers``.

    Raises
    ------
    PredictionsError
        If something else lies there, or objects are missing or of another size.
    """
    objects = open_objects(url.rstrip("/"))
    there = objects.root.exists() if isinstance(objects, LocalObjects) else objects.exists(METADATA_KEY)
    if not there:
        return False
    try:
        attributes, ledger = _read_root(url)
    except PredictionsError as error:
        if error.problem != _NO_PREDICTIONS:
            raise
        raise PredictionsError(
            "something else lies where the predictions are to be written",
            path=url,
            found=error.found or f"no {METADATA_KEY}",
            remedy="choose another name for the predictions, or move it",
        ) from error
    found = attributes.get("identity")
    if found != identity:
        differences = list(_list_differences(attributes, tiers, sessions, shares or {}, precision))
        if not differences:
            differences = [(f"identity {str(found)[:_SHOWN_DIGITS]}", f"identity {identity[:_SHOWN_DIGITS]}")]
        raise PredictionsError(
            "other predictions lie there",
            path=url,
            found="; ".join(one for one, _ in differences),
            expected="; ".join(other for _, other in differences),
            remedy="choose another name, or remove them",
        )
    if ledger is not None:
        _require_sizes(url, objects, ledger, ledger.objects)
    return True


def predictions_attributes(url: str) -> dict[str, Any]:
    """Return the attributes of a predictions store's root.

    Raises
    ------
    PredictionsError
        If there is no finished predictions store, it is damaged, or it is of another schema version.
    """
    attributes, _ = _read_root(url)
    return attributes


def predicted_sessions(url: str) -> tuple[Session, ...]:
    """Return the sessions of a predictions store, in catalogue order.

    Raises
    ------
    PredictionsError
        If there is no finished predictions store.
    """
    return tuple(sorted(find_session(name) for name in predictions_attributes(url)["stores"]))


def open_predictions(url: str, session: str) -> xr.Dataset:
    """Open the predictions of one session.

    Parameters
    ----------
    url : str
        The predictions store.
    session : str
        Alias or full name.

    Returns
    -------
    xarray.Dataset
        ``predictions`` (trial, neuron, time), float32, a dask block a trial; coordinates in memory. The
        root's attributes are among its attributes.

    Raises
    ------
    PredictionsError
        If there is no finished predictions store, it is damaged, or the session is not in it.
    """
    attributes, ledger = _read_root(url)
    found = find_session(session)
    if found.name not in attributes["stores"]:
        raise PredictionsError(
            "the session is not predicted",
            session=found,
            path=url,
            found=", ".join(find_session(name).alias for name in attributes["stores"]),
            remedy="predict it, or choose another session",
        )
    group = open_objects(url.rstrip("/")).child(found.name)
    store = group.zarr_store()
    if ledger is not None:
        # Zarr would wait for whoever writes into a named pipe. Of the trials each is named below.
        trials = f"{found.name}/{TRIALS_PREFIX}"
        keys = [key for key in ledger.objects if key.startswith(f"{found.name}/") and not key.startswith(trials)]
        _require_sizes(url, open_objects(url.rstrip("/")), ledger, keys, found)
        store = CheckedStore(store, found.name, ledger.objects, partial(_damaged_object, url, found))
    try:
        # Zarr follows links. Reading refuses those that lead out.
        group.read(METADATA_KEY)
        stored = xr.open_zarr(store, consolidated=True, chunks=None)
        loaded = stored.assign_coords({name: coordinate.load() for name, coordinate in stored.coords.items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise _damaged(url, str(error), session=found) from error
    if isinstance(group, LocalObjects):
        # Zarr reads an object that is lost or empty as NaN and says nothing.
        valid = zip(loaded["trial"].values.tolist(), loaded["valid"].values.tolist(), strict=True)
        for index, (trial, is_valid) in enumerate(valid):
            if is_valid and not group.size(trial_key(index)):
                raise _damaged(url, f"no {trial_key(index)}", session=found, trial=trial)
    # One dask block a trial: a trial is one object, and smaller blocks would each read it.
    blocks = {"trial": 1, "neuron": -1, "time": -1}
    survive_forks()
    chunked = loaded.assign({name: variable.chunk(blocks) for name, variable in loaded.data_vars.items()})
    return make_portable(chunked.assign_attrs(attributes | loaded.attrs))


def verify_predictions(
    url: str, *, jobs: int = 4, progress: Progress = ignore_progress, resumes: bool = False
) -> VerificationReport:
    """Read every object of a predictions store and compare it with the ledger.

    Predictions of an earlier version have none: there all values are read and compared with the root's
    ``content_digest``.

    Parameters
    ----------
    url : str
        The predictions store.
    jobs : int
        Objects read at once.
    progress : Progress
        Told after each object or session.
    resumes : bool
        Go on from where an interrupted verification of the last 24 hours ended.

    Raises
    ------
    PredictionsError
        If there is no finished predictions store, or its root or ledger is damaged.
    """
    attributes, ledger = _read_root(url)
    if ledger is not None:
        objects = open_objects(url.rstrip("/"))
        return verify_objects(
            objects, ledger, remedy=_REMEDY, jobs=jobs, progress=progress, label="verify predictions", resumes=resumes
        )
    digests: dict[str, dict[int, str]] = {}
    n_objects = size_bytes = 0
    sessions = predicted_sessions(url)
    for n_done, session in enumerate(sessions, start=1):
        predicted = open_predictions(url, session.name)
        valid = predicted.isel(trial=predicted["valid"].values)
        digests[session.name] = {
            trial: digest_values(block.compute(scheduler="synchronous"))
            for trial, block in zip(valid["trial"].values.tolist(), valid["predictions"].data, strict=True)
        }
        n_objects += len(digests[session.name])
        size_bytes += valid["predictions"].nbytes
        progress("verify predictions", n_done, len(sessions))
    is_sound = digest_content(digests) == attributes["content_digest"]
    problems = () if is_sound else ("the digest of all values is not that of the values that were written",)
    return VerificationReport("", "content digest", n_objects, size_bytes, problems, _REMEDY)


def _read_root(url: str) -> tuple[dict[str, Any], ObjectLedger | None]:
    """Return a predictions store's attributes and its ledger; earlier versions wrote none."""
    objects = open_objects(url.rstrip("/"))
    try:
        data = objects.read(METADATA_KEY)
        attributes = dict(parse_json(data)["attributes"])
    except FileNotFoundError:
        if _has_ledger(objects):
            raise _damaged_root(url, f"no {METADATA_KEY}") from None
        unfinished = isinstance(objects, LocalObjects) and Path(f"{objects.root}.partial").exists()
        raise PredictionsError(
            "the predictions are unfinished" if unfinished else _NO_PREDICTIONS,
            path=url,
            remedy="predict again: it continues" if unfinished else "give the store that `sensorium predict` wrote",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged_root(url, f"unreadable metadata ({describe_damage(error)})") from error
    if attributes.get("kind") != PREDICTIONS_KIND:
        raise PredictionsError(
            _NO_PREDICTIONS,
            path=url,
            found=f"a Zarr group titled {attributes.get('title')!r}",
            remedy="give the store that `sensorium predict` wrote",
        )
    version = attributes.get("schema_version")
    if version not in READABLE_SCHEMA_VERSIONS:
        raise PredictionsError(
            "predictions of another schema version",
            path=url,
            found=version,
            expected=" or ".join(map(str, READABLE_SCHEMA_VERSIONS)),
            remedy="predict again with this version",
        )
    try:
        ledger = ObjectLedger.read(objects.read(LEDGER_KEY), PREDICTIONS_KIND)
        damage = ledger.objects[METADATA_KEY].find_damage(data)
    except FileNotFoundError:
        if "content_digest" not in attributes:
            raise PredictionsError(
                "the predictions are unfinished", path=url, remedy="remove them, and predict again"
            ) from None
        if version < _FIRST_VERSION_WITH_LEDGER:
            return attributes, None
        raise _damaged_root(url, f"no {LEDGER_KEY}") from None
    except (ValueError, KeyError) as error:
        raise _damaged_root(url, f"an unreadable {LEDGER_KEY} ({describe_damage(error)})") from error
    if damage is not None:
        raise _damaged_root(url, f"{METADATA_KEY}: {damage}")
    return attributes, ledger


def _require_sizes(
    url: str, objects: Objects, ledger: ObjectLedger, keys: Iterable[str], session: Session | None = None
) -> None:
    """Raise if objects are missing or of another size, on a local disk: elsewhere a size takes a request each."""
    if not isinstance(objects, LocalObjects):
        return
    for key in keys:
        size_bytes, expected = objects.size(key), ledger.objects[key].size_bytes
        if size_bytes != expected:
            damage = f"no {key}" if size_bytes is None else f"{key} of {count_things(size_bytes, 'byte')}"
            raise _damaged(url, damage, expected=f"an object of {count_things(expected, 'byte')}", session=session)


def _has_ledger(objects: Objects) -> bool:
    """Whether a ledger of predictions lies there: it is written before the root's metadata, which is lost then."""
    try:
        ledger = parse_json(objects.read(LEDGER_KEY))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(ledger, dict) and ledger.get("kind") == PREDICTIONS_KIND


def _list_differences(
    attributes: Mapping[str, Any],
    tiers: Collection[str],
    sessions: Collection[str],
    shares: Mapping[str, float],
    precision: str | None,
) -> Iterator[tuple[str, str]]:
    """Yield what predictions have otherwise than what is asked for: theirs, and what would be."""
    digests = [str(digest) for digest in attributes.get("runs", ())]
    stores = attributes.get("stores", {})
    runs, asked_runs = ([digest[:_SHOWN_DIGITS] for digest in one] for one in (digests, shares))
    aliases, asked_aliases = ([find_session(name).alias for name in one] for one in (stores, sessions))
    for kind, theirs, ours in (
        ("tiers", attributes.get("tiers", ()), tiers),
        ("sessions", aliases, asked_aliases),
        ("runs", runs, asked_runs),
    ):
        if ours and sorted(theirs) != sorted(ours):
            yield f"{kind} {', '.join(theirs)}", f"{kind} {', '.join(ours)}"
    computed = str(attributes.get("precision", "32-true"))
    if precision is not None and computed != precision:
        yield f"precision {computed}", f"precision {precision}"
    if digests and sorted(digests) == sorted(shares):
        weights = attributes.get("weights", [1] * len(digests))
        theirs, ours = (
            [f"{share:.3g}" for share in one]
            for one in ([weight / sum(weights) for weight in weights], [shares[digest] for digest in digests])
        )
        if theirs != ours:
            yield f"weights {', '.join(theirs)}", f"weights {', '.join(ours)}"


def _damaged_object(url: str, session: Session, key: str, problem: str) -> PredictionsError:
    return _damaged(url, f"{key}: {problem}", session=session)


def _damaged_root(url: str, found: str) -> PredictionsError:
    """Return the error for what has to be sound before anything can be verified."""
    return PredictionsError("the predictions store is damaged", path=url, found=found, remedy=_REMEDY)


def _damaged(
    url: str,
    found: str,
    *,
    expected: str | None = None,
    session: Session | None = None,
    trial: int | None = None,
) -> PredictionsError:
    return PredictionsError(
        "the predictions store is damaged",
        session=session,
        trial=trial,
        path=url,
        found=found,
        expected=expected,
        remedy=f"{quote_command('verify', url)} lists what is wrong; {_REMEDY}",
    )
