"""Whole trials from session stores, kept in memory as far as a budget allows.

A block is everything that was recorded in one trial. Reading one is safe from any thread, and most of it runs
beside Python: :mod:`sensorium_data.windows.loader` reads several at once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.errors import StoreError, TrialError, UsageError
from sensorium_data.files import (
    LocalObjects,
    ObjectCache,
    Objects,
    RetryPolicy,
    StoredObject,
    default_object_cache,
)
from sensorium_data.recorded_frames import count_recorded_frames, count_usable_frames, fill_missing_end
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.store import METADATA_KEY, ArrayPool, BlockDecoder, Store, StoreLike, open_store
from sensorium_data.windows.block_cache import BlockCache, default_cache_bytes
from sensorium_data.windows.plans import SessionTrials

__all__ = ["FloatArray", "RecordedTrial", "TrialReader"]

FloatArray = npt.NDArray[np.float32]

_Result = TypeVar("_Result")

#: Bound on what is kept on the local disk of stores elsewhere, unless told otherwise.
_OBJECT_CACHE_BYTES = 20 * 2**30

# A few batches and the trials that they are cut from.
_IDLE_BYTES = 2**29


@dataclass(frozen=True, eq=False)
class RecordedTrial:
    """Everything recorded in one trial, as stored, without the frames that only pad it.

    Frames are those of the video. A modality may end up to
    :data:`~sensorium_data.recorded_frames.MOST_MISSING_FRAMES` frames before it: responses are NaN from there on, and
    behavior and pupil center stay at their last value.

    Attributes
    ----------
    session : str
        The session's full name.
    trial : int
        The trial's id.
    videos : ndarray of float32, shape (time, height, width)
        Luminance, 0-255.
    responses : ndarray of float32, shape (neuron, time), or None
        None where the archive withholds them, or where they were not asked for. Time runs slowest in memory.
    behavior : ndarray of float32, shape (2, time)
        Pupil dilation and running speed; (0, time) where the recording has none.
    pupil_center : ndarray of float32, shape (2, time)
        Pixels of the eye camera; (0, time) where the recording has none.
    """

    session: str
    trial: int
    videos: FloatArray
    responses: FloatArray | None
    behavior: FloatArray
    pupil_center: FloatArray

    @property
    def n_frames(self) -> int:
        """Valid frames."""
        return int(self.videos.shape[0])

    def copy(self) -> RecordedTrial:
        """Return the trial in memory of its own, laid out as it was and read-only as it was."""

        def copy(array: FloatArray) -> FloatArray:
            copied = array.copy(order="K")
            copied.setflags(write=False)
            return copied

        return RecordedTrial(
            session=self.session,
            trial=self.trial,
            videos=copy(self.videos),
            responses=None if self.responses is None else copy(self.responses),
            behavior=copy(self.behavior),
            pupil_center=copy(self.pupil_center),
        )

    @property
    def size_bytes(self) -> int:
        """Memory that the arrays take."""
        arrays = (self.videos, self.responses, self.behavior, self.pupil_center)
        return sum(int(array.nbytes) for array in arrays if array is not None)


class TrialReader:
    """Reads trial blocks, and keeps as many in memory as a budget allows.

    Every object is compared with the ledger as it is read: damage on a disk or on the way is an error here
    and never a number in a model.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    sessions : sequence of str
        Aliases or full names.
    reads_responses : bool
        Prediction needs none, and they are most of the bytes.
    n_threads : int, optional
        Blocks that readers of this object should read at once; by default the number of cores, at most 8, and 8 where
        the store is not on a local disk.
    cache_bytes : int, optional
        Memory for blocks that are kept; 0 keeps none; by default :func:`default_cache_bytes`.
    object_cache : ObjectCache, optional
        Where objects of a remote store are kept on the local disk; by default up to 20 GB in the user's folder for
        caches. A store on a local disk needs none.
    policy : RetryPolicy, optional
        How long to insist where a remote store does not answer, or cuts an answer.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened.
    UsageError
        If a number is out of range or no session is given.
    """

    def __init__(
        self,
        store: StoreLike,
        sessions: Sequence[str],
        *,
        reads_responses: bool = True,
        n_threads: int | None = None,
        cache_bytes: int | None = None,
        object_cache: ObjectCache | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        if not sessions:
            raise UsageError("no session to read", path=store.url if isinstance(store, Store) else store)
        if n_threads is not None and n_threads < 1:
            raise UsageError("reading needs a thread", found=n_threads, expected="at least 1")
        policy = policy or RetryPolicy()
        #: What is read.
        self.store = _insist(lambda: open_store(store), policy)
        is_local = isinstance(self.store.objects, LocalObjects)
        if is_local:
            object_cache = None
        elif object_cache is None:
            object_cache = default_object_cache(_OBJECT_CACHE_BYTES)
        self.sessions: tuple[Session, ...] = tuple(find_session(name) for name in sessions)
        self.n_threads = n_threads if n_threads is not None else min(8, os.cpu_count() or 1) if is_local else 8
        self.cache: BlockCache[RecordedTrial] = BlockCache(
            cache_bytes if cache_bytes is not None else default_cache_bytes()
        )
        self._reads_responses = reads_responses
        self.pool = ArrayPool(_IDLE_BYTES)
        self._recordings: dict[str, _Recording] = {}
        for session in self.sessions:
            open_once = partial(_Recording.open, self.store, session, object_cache, self.pool, policy)
            self._recordings[session.name] = open_once() if is_local else _insist(open_once, policy)

    def coordinates(self, session: str) -> xr.Dataset:
        """Return a session's coordinates, in memory."""
        return self._recording(session).coordinates

    def shape_of(self, session: str, variable: str) -> tuple[int, ...]:
        """Return the shape of a variable at one frame: (height, width) of ``videos``, or the number of channels.

        A recording without behavior or pupil centers has 0 channels of them.
        """
        return self._recording(session).shapes[variable]

    def unit_ids(self, session: str) -> npt.NDArray[np.int64]:
        """Return the ids of a session's neurons, in the order of its responses."""
        return self._recording(session).unit_ids

    def select_trials(
        self, session: str, tiers: Iterable[Tier], *, labelled: bool = False, only: Collection[int] | None = None
    ) -> SessionTrials:
        """Return a session's valid trials of some tiers.

        Parameters
        ----------
        session : str
            Alias or full name.
        tiers : iterable of Tier
            Which trials.
        labelled : bool
            Only trials whose responses are published, and of each the frames that all modalities were recorded at.
        only : collection of int, optional
            Only these of them.

        Raises
        ------
        UsageError
            If there is none.
        """
        name = find_session(session).name
        recording = self._recording(name)
        names = [str(tier) for tier in tiers]
        coordinates = recording.coordinates
        tier_of_trial = [str(tier) for tier in coordinates["tier"].values.tolist()]
        chosen = np.array([tier in names for tier in tier_of_trial]) & coordinates["valid"].values
        if labelled:
            chosen &= ~coordinates["responses_withheld"].values
        if only is not None:
            chosen &= np.isin(coordinates["trial"].values, sorted(only))
        if not chosen.any():
            raise UsageError(
                f"no valid trial of tier {', '.join(names)}"
                + (" with published responses" if labelled else "")
                + (" among those chosen" if only is not None else ""),
                session=name,
                path=self.store.url,
                found=f"tiers {', '.join(sorted(set(tier_of_trial)))}",
                remedy="choose another tier, or leave the session out",
            )
        return SessionTrials(
            session=name,
            trials=tuple(int(trial) for trial in coordinates["trial"].values[chosen]),
            n_frames=tuple(
                int(n) for n in (recording.n_frames_labelled if labelled else recording.n_frames_video)[chosen]
            ),
        )

    def read(self, session: str, trial: int) -> RecordedTrial:
        """Return one trial's block; its arrays are read-only, since the cache shares them.

        Raises
        ------
        TrialError
            If the session has no such trial.
        StoreError
            If a valid frame holds something that is no number, but for the few that a modality may lack at the end.
        """
        recording = self._recording(session)
        key = (recording.session.name, trial)
        block = self.cache.get(key)
        if block is None:
            block = recording.read_block(trial, reads_responses=self._reads_responses)
            if self.cache.has_room(block.size_bytes):
                # Memory of just its size: what the pool lends may be larger, and the budget would not know.
                block = block.copy()
                self.cache.offer(key, block)
        return block

    def has_responses(self, session: str, trial: int) -> bool:
        """Return whether a trial's block will have responses."""
        return self._reads_responses and not self._recording(session).is_withheld(trial)

    def _recording(self, session: str) -> _Recording:
        name = find_session(session).name
        if name not in self._recordings:
            raise UsageError(
                "the session was not opened",
                session=name,
                path=self.store.url,
                expected=f"one of {', '.join(s.name for s in self.sessions)}",
            )
        return self._recordings[name]


@dataclass(frozen=True, eq=False)
class _Recording:
    """One session, open: its coordinates and small arrays in memory, its large arrays on disk."""

    session: Session
    store: str
    coordinates: xr.Dataset
    #: By variable, (trial,) frames at which it has to hold numbers.
    usable_frames: Mapping[str, npt.NDArray[np.int64]]
    #: Filled with their last values where they end a little before the video.
    behavior: FloatArray
    pupil_center: FloatArray
    objects: Objects
    decoders: Mapping[str, BlockDecoder]
    ledger: Mapping[str, StoredObject]
    unit_ids: npt.NDArray[np.int64]
    positions: Mapping[int, int]
    #: By variable, its shape at one frame of one trial.
    shapes: Mapping[str, tuple[int, ...]]
    object_cache: ObjectCache | None
    pool: ArrayPool
    policy: RetryPolicy

    @classmethod
    def open(
        cls,
        store: Store,
        session: Session,
        object_cache: ObjectCache | None,
        pool: ArrayPool,
        policy: RetryPolicy,
    ) -> _Recording:
        dataset = store[session]
        child = store.objects.child(store.group(session))
        coordinates = dataset.drop_vars(list(dataset.data_vars))
        decoders = {
            name: BlockDecoder(name, json.loads(child.read(f"{name}/{METADATA_KEY}")))
            for name in ("videos", "responses")
        }
        positions = {int(trial): position for position, trial in enumerate(coordinates["trial"].values)}
        ledger = store.ledger(session)
        n_frames = coordinates["n_frames"].values
        # A trial's part of these lies in one object with all others'.
        nothing = np.zeros((dataset.sizes["trial"], 0, dataset.sizes["time"]), np.float32)
        small = {
            name: np.array(dataset[name].values, dtype=np.float32) if name in dataset else nothing
            for name in ("behavior", "pupil_center")
        }
        shapes: dict[str, tuple[int, ...]] = {name: values.shape[1:2] for name, values in small.items()}
        shapes["videos"] = (dataset.sizes["height"], dataset.sizes["width"])
        usable = {name: _fill_ends(values, n_frames) for name, values in small.items()}
        usable["responses"] = n_frames.astype(np.int64)
        for trial, facts in ledger.trials.items():
            # Reading all responses to find their ends would take minutes: the ledger knows them.
            if trial in positions and (n_missing := (facts.n_missing_frames or {}).get("responses", 0)):
                n = facts.n_frames
                usable["responses"][positions[trial]] = count_usable_frames(n - n_missing, n)
        return cls(
            session=session,
            store=store.url,
            coordinates=coordinates,
            usable_frames=usable,
            **small,
            objects=child,
            decoders=decoders,
            ledger=ledger.objects,
            unit_ids=np.asarray(coordinates["neuron"].values),
            positions=positions,
            shapes=shapes,
            object_cache=object_cache,
            pool=pool,
            policy=policy,
        )

    @property
    def n_frames_video(self) -> npt.NDArray[np.int64]:
        """(trial,) valid frames."""
        return np.asarray(self.coordinates["n_frames"].values, np.int64)

    @property
    def n_frames_labelled(self) -> npt.NDArray[np.int64]:
        """(trial,) valid frames that all modalities were recorded at."""
        return np.asarray(np.stack(list(self.usable_frames.values())).min(axis=0), np.int64)

    def is_withheld(self, trial: int) -> bool:
        return bool(self.coordinates["responses_withheld"].values[self._position(trial)])

    def read_block(self, trial: int, *, reads_responses: bool) -> RecordedTrial:
        position = self._position(trial)
        n_frames = int(self.coordinates["n_frames"].values[position])

        def check(variable: str, values: np.ndarray) -> FloatArray:
            array: FloatArray = values.astype(np.float32, copy=False)
            n_usable = int(self.usable_frames["responses"][position]) if variable == "responses" else n_frames
            self._require_numbers(variable, trial, array[:, :n_usable] if n_usable < n_frames else array)
            array.setflags(write=False)
            return array

        def read(variable: str) -> FloatArray:
            return check(variable, self._decode(variable, trial, position, n_frames))

        return RecordedTrial(
            session=self.session.name,
            trial=trial,
            videos=read("videos"),
            responses=read("responses") if reads_responses and not self.is_withheld(trial) else None,
            behavior=check("behavior", self.behavior[position, :, :n_frames]),
            pupil_center=check("pupil_center", self.pupil_center[position, :, :n_frames]),
        )

    def _position(self, trial: int) -> int:
        position = self.positions.get(trial)
        if position is None:
            raise TrialError(
                "the session has no such trial",
                session=self.session.name,
                trial=trial,
                path=self.store,
                found=f"{len(self.positions)} trials, ids {min(self.positions)} to {max(self.positions)}",
            )
        return position

    def _decode(self, variable: str, trial: int, position: int, n_frames: int) -> np.ndarray:
        decoder = self.decoders[variable]
        key = decoder.key(position)
        stored = self.ledger.get(key)
        if stored is None:
            raise self._damaged(trial, key, "not in the ledger")
        data = self._read_object(trial, key, stored)
        damage = stored.find_damage(data)
        if damage is not None:
            raise self._damaged(trial, key, damage)
        try:
            return decoder.decode(data, n_frames, self.pool.empty)
        except ValueError as error:
            raise self._damaged(trial, key, str(error)) from error

    def _read_object(self, trial: int, key: str, stored: StoredObject) -> bytes | memoryview:
        """Return an object's bytes, in memory that this thread uses again for the next one."""
        try:
            if isinstance(self.objects, LocalObjects):
                # A byte more than there should be: a file that is too long shows.
                buffer = _lend_buffer(stored.size_bytes + 1)
                return buffer[: self.objects.read_into(key, buffer)]

            def fetch() -> bytes:
                return _insist(
                    lambda: self.objects.read(key), self.policy, lambda data: stored.find_damage(data) is None
                )

            return fetch() if self.object_cache is None else self.object_cache.read(stored, fetch)
        except FileNotFoundError:
            raise self._damaged(trial, key, "missing") from None

    def _require_numbers(self, variable: str, trial: int, array: FloatArray) -> None:
        # A sum finds what is no number at the price of one pass.
        if np.isfinite(array.sum()):
            return
        bad = ~np.isfinite(array)
        if not bad.any():
            return
        axis = 0 if variable == "videos" else 1
        frame = int(np.flatnonzero(bad.any(axis=tuple(a for a in range(array.ndim) if a != axis)))[0])
        raise StoreError(
            f"{variable} holds values that are no numbers in valid frames",
            session=self.session.name,
            trial=trial,
            path=self.store,
            found=f"{int(np.count_nonzero(bad))} of {array.size}, the first in frame {frame}",
            expected="none",
            remedy="leave the trial out; `sensorium inspect` lists such trials",
        )

    def _damaged(self, trial: int, key: str, found: str) -> StoreError:
        return StoreError(
            "the store is damaged",
            session=self.session.name,
            trial=trial,
            path=self.objects.locate(key),
            found=found,
            remedy="`sensorium verify` lists what is wrong; `sensorium ingest --repair` converts that again",
        )


def _fill_ends(values: FloatArray, n_frames: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Fill (trial, row, time) values where they end a little before the video; return each trial's usable frames."""
    usable = np.array(n_frames, np.int64)
    for position, n in enumerate(n_frames.tolist()):
        n_recorded = count_recorded_frames(values[position], n)
        usable[position] = count_usable_frames(n_recorded, n)
        if n_recorded == usable[position] < n:
            fill_missing_end(values[position], n_recorded, n)
    return usable


def _insist(
    call: Callable[[], _Result], policy: RetryPolicy, is_good: Callable[[_Result], bool] = lambda result: True
) -> _Result:
    """Call it, again where the network failed or cut the answer; return the last result in any case."""
    for attempt in range(1, policy.n_attempts + 1):
        is_last = attempt == policy.n_attempts
        try:
            result = call()
            if is_last or is_good(result):
                return result
        except Exception as error:
            # A store that says that something is missing or damaged will say so again.
            cause = error.__cause__ if isinstance(error, StoreError) else error
            if is_last or not isinstance(cause, (OSError, _client_error())) or isinstance(cause, FileNotFoundError):
                raise
        time.sleep(policy.wait_s(attempt))
    raise AssertionError("a retry policy allows at least one attempt")


def _client_error() -> type[Exception]:
    # HTTP answers come as aiohttp's errors, which are no OSErrors; local stores need none of it.
    from aiohttp import ClientError

    return ClientError


_buffers = threading.local()


def _lend_buffer(size_bytes: int) -> memoryview:
    """Return this thread's buffer: fresh memory for each object costs more than reading it does."""
    buffer: np.ndarray | None = getattr(_buffers, "buffer", None)
    if buffer is None or buffer.nbytes < size_bytes:
        buffer = _buffers.buffer = np.empty(size_bytes, np.uint8)
    return buffer.data[:size_bytes]
