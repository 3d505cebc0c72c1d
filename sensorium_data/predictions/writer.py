"""Writing a predictions store: trial by trial, resumable, named only when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data import schema
from sensorium_data.counting import count_things
from sensorium_data.errors import LockedError, PredictionsError, UsageError, describe_os_error
from sensorium_data.files import (
    MOVE_FOREIGN,
    LocalObjects,
    RemoteObjects,
    StoredObject,
    close_locked,
    hold_place,
    lock_folder,
    make_folder,
    open_objects,
    parse_json,
    refuse_owned_folder,
    require_own_folder,
    sync_folder,
)
from sensorium_data.predictions.content_digest import digest_content, digest_values
from sensorium_data.predictions.unfinished import (
    COORDINATE_NAMES,
    PREDICTIONS_KIND,
    UNFINISHED_PREDICTIONS,
    is_whole,
)
from sensorium_data.predictions.written_trials import JOURNAL_KEY, WrittenTrials
from sensorium_data.sessions import Session, find_session
from sensorium_data.store import (
    LEDGER_KEY,
    METADATA_KEY,
    ObjectLedger,
    SessionTemplate,
    StoreLike,
    consolidate,
    lock_key,
    open_store,
    parse_tiers,
)

__all__ = ["TRIALS_PREFIX", "PredictionsWriter", "ResponseUnits", "lock_name", "trial_key"]

#: Units of predicted activity: ``standardized`` is the competition's, each response divided by its standard
#: deviation over trials, frame by frame; ``raw`` is that of the recorded responses.
ResponseUnits = Literal["standardized", "raw"]

_VARIABLE = schema.PREDICTIONS.name
#: What the keys of all trials' objects begin with, and of no others.
TRIALS_PREFIX = f"{_VARIABLE}/c/"


class PredictionsWriter:
    """A predictions store in the making. Made by :func:`sensorium_data.predictions.create_predictions`.

    On leaving the ``with`` statement normally the store is checked to be whole and gets its name. On
    leaving by an error nothing is there under that name; with an ``identity``, a later writer with equal
    arguments continues it. :meth:`write_trial` may be called from several threads.

    Parameters
    ----------
    url, store, sessions, tiers, response_units, runs, identity, attributes, left_out, neurons, lock
        As :func:`sensorium_data.predictions.create_predictions` takes them.

    Examples
    --------
    >>> def predict_oracle(model, url, store):
    ...     with PredictionsWriter(url, store=store, sessions=["F"], tiers=["oracle"], response_units="raw") as writer:
    ...         for trial in writer.missing_trials("F"):
    ...             writer.write_trial("F", trial, model(trial), first_frame=50)
    """

    def __init__(
        self,
        url: str,
        *,
        store: StoreLike,
        sessions: Iterable[str],
        tiers: Iterable[str],
        response_units: ResponseUnits,
        runs: Iterable[str] = (),
        identity: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        left_out: Mapping[str, Collection[int]] | None = None,
        neurons: Mapping[str, Sequence[int]] | None = None,
        lock: bool = True,
    ) -> None:
        self._store = open_store(store)
        self._target = open_objects(url.rstrip("/"))
        # Nothing can be renamed at once behind a remote URL. There the parts lie in place, and the root's
        # metadata, without which nobody finds them, is written last.
        self._work = (
            LocalObjects(f"{self._target.root}.partial") if isinstance(self._target, LocalObjects) else self._target
        )
        self._sessions = tuple(dict.fromkeys(find_session(name) for name in sessions))
        self._tiers = parse_tiers(tiers, self._store, self._sessions)
        if not self._sessions or not self._tiers:
            raise UsageError("no session or no tier to predict", path=url, remedy="name at least one of each")
        if response_units not in get_args(ResponseUnits):
            raise UsageError(
                "unknown units of predictions",
                found=repr(response_units),
                expected=" or ".join(get_args(ResponseUnits)),
            )
        own = {
            "kind": PREDICTIONS_KIND,
            "schema_version": schema.SCHEMA_VERSION,
            "response_units": response_units,
            "runs": list(runs),
            "tiers": [str(tier) for tier in self._tiers],
            "stores": {session.name: self._store.digest(session) for session in self._sessions},
        }
        simulated = [session.name for session in self._sessions if self._store.is_simulated(session)]
        if simulated:
            own["simulated"] = simulated
        if identity is not None:
            own["identity"] = identity
        self._left_out = {find_session(name): sorted(trials) for name, trials in (left_out or {}).items() if trials}
        self._neurons = {find_session(name): list(unit_ids) for name, unit_ids in (neurons or {}).items()}
        # Absent where nothing is left out: stores that earlier versions began are continued.
        if self._left_out:
            own["left_out"] = {session.name: trials for session, trials in self._left_out.items()}
        free = {"title": "Predicted neuronal activity, SENSORIUM 2023", **(attributes or {})}
        taken = sorted(set(free) & {*own, "identity", "content_digest", "left_out", "simulated"})
        if taken:
            raise UsageError("attributes that the predictions store sets itself", found=", ".join(taken))
        # Through JSON, so that what a resumed store is compared with is what can be read back.
        self._attributes: dict[str, Any] = json.loads(json.dumps(free | own))
        self._resumable = identity is not None and isinstance(self._work, LocalObjects)
        self._lock = threading.Lock()
        self._coordinates: dict[Session, xr.Dataset] = {}
        self._templates: dict[Session, SessionTemplate] = {}
        #: SHA-256 of each written trial's values; empty while a trial is being written.
        self._digests: dict[Session, dict[int, str]] = {}
        #: By key, relative to the store's root.
        self._objects: dict[str, StoredObject] = {}
        self._claim: int | None = None
        self._owns_work = False
        self._locks = lock
        self._lock_stack = contextlib.ExitStack()
        self._require_lock: Callable[[], None] = lambda: None

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes, as they can be read back, without the digest of the values."""
        return dict(self._attributes)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions to predict."""
        return self._sessions

    def trials(self, session: str) -> tuple[int, ...]:
        """Return the ids of the trials that have to be written: the valid ones of the tiers."""
        coordinates = self._coordinates_of(find_session(session))
        return tuple(coordinates["trial"].values[coordinates["valid"].values].tolist())

    def missing_trials(self, session: str) -> tuple[int, ...]:
        """Return the ids of the trials that have not been written yet, by this or an interrupted writer."""
        trials = self.trials(session)
        with self._lock:
            done = set(self._digests[find_session(session)])
        return tuple(trial for trial in trials if trial not in done)

    def write_trial(self, session: str, trial: int, prediction: npt.ArrayLike, first_frame: int) -> None:
        """Write one trial.

        Parameters
        ----------
        session : str
            Alias or full name.
        trial : int
            The trial's id.
        prediction : array_like
            (neurons, frames): the frames from ``first_frame`` to the trial's last valid one.
        first_frame : int
            The first predicted frame.

        Raises
        ------
        PredictionsError
            If the trial is not one of :meth:`trials`, was written before, or the array's shape or values are wrong.
        StoreError
            If it cannot be written.
        """
        found = find_session(session)
        coordinates = self._coordinates_of(found)
        index = self._position(found, trial)
        # NumPy's integers are no keys of JSON.
        trial = int(trial)
        block = _pad(
            prediction,
            first_frame,
            int(coordinates["n_frames"].values[index]),
            (coordinates.sizes["neuron"], coordinates.sizes["time"]),
            {"session": found, "trial": trial},
        )
        with self._lock:
            if trial in self._digests[found]:
                raise PredictionsError(
                    "the trial was written before", session=found, trial=trial, remedy="write each trial once"
                )
            self._digests[found][trial] = ""
        try:
            key, data = self._templates[found].encode_block(_VARIABLE, index, block)
            self._work.child(found.name).write(key, data)
            self._note_written(found, key, StoredObject.of(data))
        except BaseException:
            with self._lock:
                del self._digests[found][trial]
            raise
        digest = digest_values(block)
        with self._lock:
            self._digests[found][trial] = digest

    def __enter__(self) -> Self:
        if isinstance(self._work, LocalObjects):
            _require_absent(self._target)
            refuse_owned_folder(self._work.root.parent, "predictions")
            self._claim = _claim_folder(self._work.root)
        else:
            self._require_lock = self._lock_stack.enter_context(_hold_url(self._work, lock=self._locks))
        try:
            if isinstance(self._work, LocalObjects):
                _require_workable(self._work)
            else:
                _require_absent(self._target)
            for session in self._sessions:
                self._coordinates[session] = self._read_coordinates(session)
                self._templates[session] = self._make_template(session)
                self._digests[session] = {}
            if self._resumes():
                for session in self._sessions:
                    self._recover(session)
            elif isinstance(self._work, LocalObjects):
                _give_way(self._work)
            if isinstance(self._work, LocalObjects):
                self._work.write(METADATA_KEY, consolidate(self._attributes, {}))
            self._owns_work = True
        except BaseException:
            self._release(discard=not self._resumable)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        finished = False
        try:
            if error is None:
                self._publish()
                finished = True
        finally:
            self._release(discard=not finished and not self._resumable)

    def _note_written(self, session: Session, key: str, stored: StoredObject) -> None:
        with self._lock:
            self._objects[f"{session.name}/{key}"] = stored
            if self._resumable and isinstance(self._work, LocalObjects):
                WrittenTrials(self._work.child(session.name)).add(key, stored)

    def _release(self, *, discard: bool) -> None:
        with self._lock_stack:
            if discard and self._owns_work and self._has_lock():
                if isinstance(self._work, LocalObjects):
                    UNFINISHED_PREDICTIONS.discard(self._work)
                else:
                    # Their metadata, which mark them, are written last.
                    UNFINISHED_PREDICTIONS.clear(self._work)
        if self._claim is not None:
            close_locked(self._claim)
            self._claim = None

    def _has_lock(self) -> bool:
        """Whether what lies there is this writer's, and not of one who has taken the lock."""
        try:
            self._require_lock()
        except LockedError:
            return False
        return True

    def _coordinates_of(self, session: Session) -> xr.Dataset:
        if session not in self._coordinates:
            raise PredictionsError(
                "the session is not being predicted",
                session=session,
                found=", ".join(s.alias for s in self._coordinates) or "no session",
                remedy="name it when creating the store, and write inside the with statement",
            )
        return self._coordinates[session]

    def _position(self, session: Session, trial: int) -> int:
        coordinates = self._coordinates[session]
        matches = np.flatnonzero((coordinates["trial"].values == trial) & coordinates["valid"].values)
        if matches.size != 1:
            broken = trial in coordinates["trial"].values
            raise PredictionsError(
                "a trial whose stimulus is broken cannot be predicted"
                if broken
                else "the trial is not being predicted",
                session=session,
                trial=trial,
                expected=f"a valid trial of {', '.join(self._tiers)}",
                remedy="write those that missing_trials() returns",
            )
        return int(matches[0])

    def _read_coordinates(self, session: Session) -> xr.Dataset:
        recorded = self._store[session]
        chosen = np.array([tier in self._tiers for tier in recorded["tier"].values.tolist()], bool)
        if not chosen.any():
            raise PredictionsError(
                "the session has no trial of the tiers to be predicted",
                session=session,
                path=self._store.url,
                expected=", ".join(self._tiers),
                remedy="choose other tiers or leave the session out",
            )
        chosen &= ~np.isin(recorded["trial"].values, self._left_out.get(session, []))
        if not chosen.any():
            raise PredictionsError(
                "every trial of the tiers to be predicted is left out",
                session=session,
                path=self._store.url,
                found=f"{count_things(len(self._left_out[session]), 'trial')} left out",
                expected=f"at least one of {', '.join(self._tiers)} that is not",
                remedy="leave fewer trials out, or leave the session out",
            )
        coordinates = xr.Dataset(coords={name: recorded[name].variable for name in COORDINATE_NAMES}).isel(trial=chosen)
        if session in self._neurons:
            coordinates = coordinates.sel(neuron=self._neurons[session])
        # Loaded once: each trial that is written looks its place up here.
        return coordinates.load()

    def _make_template(self, session: Session) -> SessionTemplate:
        coordinates = self._coordinates[session]
        template = SessionTemplate({str(dim): size for dim, size in coordinates.sizes.items()})
        units = self._attributes["response_units"]
        template.declare_array(_VARIABLE, schema.PREDICTIONS, {"units": units})
        for name in COORDINATE_NAMES:
            template.encode_array(name, schema.COORDINATES[name], coordinates[name].values)
        return template

    def _resumes(self) -> bool:
        """Whether a writer with equal arguments was interrupted here."""
        if not self._resumable:
            return False
        try:
            begun = parse_json(self._work.read(METADATA_KEY))["attributes"]
            # It has the digest if its writer was killed between the last two steps.
            begun.pop("content_digest", None)
            # The trials of every version that can be read are stored alike.
            is_readable = begun["schema_version"] in schema.READABLE_SCHEMA_VERSIONS
            return bool(is_readable and begun | {"schema_version": schema.SCHEMA_VERSION} == self._attributes)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def _recover(self, session: Session) -> None:
        if not isinstance(self._work, LocalObjects):
            return
        group = self._work.child(session.name)
        coordinates = self._coordinates[session]
        noted = WrittenTrials(group).read()
        for index, trial in enumerate(coordinates["trial"].values.tolist()):
            # A trial is one object, written whole or not at all. One that is missing or not what was noted is written
            # again.
            key = trial_key(index)
            with contextlib.suppress(FileNotFoundError):
                data = group.read(key)
                if key in noted and noted[key].find_difference(data) is None:
                    values = self._templates[session].decode_block(_VARIABLE, data)
                    self._digests[session][trial] = digest_values(values)
                    self._objects[f"{session.name}/{key}"] = noted[key]

    def _publish(self) -> None:
        for session in self._sessions:
            missing = self.missing_trials(session.name)
            if missing:
                raise PredictionsError(
                    "not every trial of the tiers was predicted",
                    session=session,
                    trial=missing[0],
                    path=self._target.url,
                    found=f"{len(missing)} missing",
                    expected=count_things(len(self.trials(session.name)), "trial"),
                    remedy="write every trial that missing_trials() returns",
                )
        content_digest = digest_content({session.name: self._digests[session] for session in self._sessions})
        nodes: dict[str, Any] = {}
        for session in self._sessions:
            self._templates[session].compose_group("", self._session_attributes(session))
            objects = self._templates[session].take_objects()
            for key, data in objects.items():
                self._work.child(session.name).write(key, data)
                self._objects[f"{session.name}/{key}"] = StoredObject.of(data)
                if key.endswith(METADATA_KEY):
                    nodes[f"{session.name}/{key}".removesuffix(f"/{METADATA_KEY}")] = json.loads(data)
        root = consolidate(self._attributes | {"content_digest": content_digest}, nodes)
        self._objects[METADATA_KEY] = StoredObject.of(root)
        self._work.write(LEDGER_KEY, ObjectLedger(self._objects).write(PREDICTIONS_KIND))
        if not isinstance(self._work, LocalObjects):
            self._require_lock()
            self._work.write(METADATA_KEY, root)
            return
        # What writers left that were killed.
        self._work.delete_keys([key for key in self._work.keys() or () if UNFINISHED_PREDICTIONS.is_temporary(key)])
        # A power cut must not leave finished predictions whose objects never reached the disk.
        self._work.sync_all()
        self._work.write_durably(METADATA_KEY, root)
        _require_absent(self._target)
        # Last: with them a writer that was killed above is continued.
        for session in self._sessions:
            group = self._work.child(session.name)
            group.delete(JOURNAL_KEY)
            sync_folder(group.root)
        try:
            # Fails where a store has appeared meanwhile: a folder that holds anything is never replaced.
            os.rename(self._work.root, self._target.locate(""))
            sync_folder(self._work.root.parent)
        except OSError as error:
            raise PredictionsError(
                "the finished predictions cannot get their name",
                path=self._target.url,
                found=describe_os_error(error),
                remedy="choose another name",
            ) from error

    def _session_attributes(self, session: Session) -> dict[str, Any]:
        return {
            "title": self._attributes["title"],
            "session": session.name,
            "alias": session.alias,
            "response_units": self._attributes["response_units"],
            "schema_version": schema.SCHEMA_VERSION,
            "coordinates": " ".join(name for name in COORDINATE_NAMES if name not in schema.PREDICTIONS.dims),
        }


def trial_key(index: int) -> str:
    """Return the key of the object that holds the trial at a position: the layout puts a trial in one."""
    return f"{TRIALS_PREFIX}{index}/0/0"


def _require_absent(objects: LocalObjects | RemoteObjects) -> None:
    """Raise a :class:`PredictionsError` if something lies where predictions are to be written."""
    # A writer that fails removes what it wrote behind a remote URL, so nothing of anybody else's may lie there.
    present = os.path.lexists(objects.root) if isinstance(objects, LocalObjects) else bool(objects.keys())
    if present:
        raise PredictionsError(
            "something lies there already",
            path=objects.url,
            remedy="choose another name, or remove it: predictions are never overwritten",
        )


def lock_name(name: str) -> str:
    """Return the name of the lock that predictions have in an object store, in the folder that they lie in."""
    return f"predictions-{name}"


def _hold_url(place: RemoteObjects, *, lock: bool) -> AbstractContextManager[Callable[[], None]]:
    """Hold the lock of predictions behind a URL."""
    if place.is_in_memory or not lock:
        return nullcontext(lambda: None)
    folder, _, name = place.url.rpartition("/")
    if not name or folder.endswith("/"):
        raise PredictionsError("predictions cannot be a whole bucket", path=place.url, remedy="name a folder in it")
    return hold_place(open_objects(folder), lock_key(lock_name(name)), "another process is writing these predictions")


def _claim_folder(folder: Path) -> int | None:
    """Make the folder and lock it: two processes never write one store, and the lock dies with its holder."""
    try:
        require_own_folder(folder)
        make_folder(folder)
        return lock_folder(folder)
    except BlockingIOError as error:
        raise PredictionsError(
            "another process is writing these predictions",
            path=folder,
            found=describe_os_error(error),
            remedy="wait for it, or choose another name",
        ) from error
    except OSError as error:
        raise PredictionsError(
            "cannot be written",
            path=folder,
            found=describe_os_error(error),
            remedy="check the path and its permissions",
        ) from error


def _require_workable(place: LocalObjects) -> None:
    """Raise a :class:`PredictionsError` if the working folder is somebody else's."""
    obstacle = UNFINISHED_PREDICTIONS.find_obstacle(place)
    if obstacle:
        raise PredictionsError(
            "a folder of something else is in the way",
            path=place.url,
            found=obstacle,
            remedy=f"{MOVE_FOREIGN}; or choose another name",
        )


def _give_way(place: LocalObjects) -> None:
    """Delete what an interrupted writer of something else left, unless it finished trials."""
    if UNFINISHED_PREDICTIONS.bears_marker(place) and is_whole(place.read(METADATA_KEY)):
        raise PredictionsError(
            "a folder of something else is in the way",
            path=place.url,
            found="finished predictions",
            remedy=f"{MOVE_FOREIGN}; or choose another name",
        )
    n_trials = sum(len(WrittenTrials(place.child(name)).read()) for name in place.folders() or ())
    if n_trials:
        raise PredictionsError(
            "an interrupted prediction of something else is there",
            path=place.url,
            found=f"{count_things(n_trials, 'finished trial')} of other runs, tiers, sessions or settings",
            remedy="finish it with the arguments that it had, remove the folder, or choose another name",
        )
    UNFINISHED_PREDICTIONS.delete_own(place)


def _pad(
    prediction: npt.ArrayLike, first_frame: int, n_frames: int, shape: tuple[int, int], place: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """Return the whole trial, (neurons, padded frames), NaN where nothing is predicted."""
    values = np.asarray(prediction)
    if not 0 <= first_frame <= n_frames:
        raise PredictionsError(
            "the first predicted frame lies outside the trial",
            **place,
            found=first_frame,
            expected=f"0 to {n_frames}",
            remedy="a trial's predictions end with its last valid frame: give no more frames than it has",
        )
    expected = (shape[0], n_frames - first_frame)
    if values.shape != expected:
        raise PredictionsError(
            "wrong shape of a prediction",
            **place,
            found=values.shape,
            expected=f"{expected} (neurons, frames {first_frame} to {n_frames - 1})",
            remedy="predict every neuron up to the trial's last valid frame",
        )
    if values.dtype.kind not in "fiu":
        raise PredictionsError("predictions are not numbers", **place, found=values.dtype, expected="float32")
    block = np.full(shape, np.nan, np.float32)
    with np.errstate(over="ignore"):
        block[:, first_frame:n_frames] = values
    finite = np.isfinite(block[:, first_frame:n_frames])
    if not finite.all():
        neuron, frame = np.argwhere(~finite)[0].tolist()
        raise PredictionsError(
            "predictions are NaN, infinite, or too large for float32",
            **place,
            found=f"{count_things(int(np.count_nonzero(~finite)), 'value')}, the first at neuron {neuron}, "
            f"frame {first_frame + frame}: {values[neuron, frame]}",
            expected=f"values up to {np.finfo(np.float32).max:.1e}",
            remedy="check the model: one that diverged predicts NaN",
        )
    return block
