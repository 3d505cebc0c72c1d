"""One session, open for reading: its coordinates and small arrays in memory, its large arrays on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError, TrialError, UsageError
from sensorium_data.files import LocalObjects, ObjectCache, Objects, RetryPolicy, StoredObject, open_objects, parse_json
from sensorium_data.recorded_frames import count_recorded_frames, count_usable_frames, fill_missing_end
from sensorium_data.sessions import Session
from sensorium_data.store import (
    METADATA_KEY,
    ArrayPool,
    BlockDecoder,
    Store,
    damaged_object,
    list_trials,
)
from sensorium_data.windows.gaps import NanPolicy, can_fill, fill_gaps, find_gaps

__all__ = ["FloatArray", "RecordedTrial", "Recording"]

FloatArray = npt.NDArray[np.float32]


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


@dataclass(frozen=True, eq=False)
class Recording:
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
    #: Valid trials that lack behavior or pupil center at some frames, whatever became of them.
    incomplete: frozenset[int]
    #: Those of them that still do.
    gaps: set[int]
    #: Of those that were filled, the frames at which a value was.
    filled: dict[int, int]
    #: Which of the stored neurons are read; None for all.
    rows: npt.NDArray[np.int64] | None = None

    @classmethod
    def open(
        cls,
        store: Store,
        session: Session,
        object_cache: ObjectCache | None,
        pool: ArrayPool,
        policy: RetryPolicy,
    ) -> Recording:
        dataset = store[session]
        child = store.objects.child(store.group(session))
        coordinates = dataset.drop_vars(list(dataset.data_vars))
        decoders = {
            name: BlockDecoder(name, parse_json(child.read(f"{name}/{METADATA_KEY}")))
            for name in ("videos", "responses")
        }
        positions = {int(trial): position for position, trial in enumerate(coordinates["trial"].values)}
        ledger = store.ledger(session)
        n_frames = coordinates["n_frames"].values
        valid = coordinates["valid"].values
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
        within = np.arange(coordinates.sizes["time"]) < n_frames[:, np.newaxis]
        missing = np.any([~np.isfinite(values).all(axis=1) for values in small.values()], axis=0) & within
        incomplete = frozenset(coordinates["trial"].values[missing.any(axis=1) & valid].tolist())
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
            behavior=small["behavior"],
            pupil_center=small["pupil_center"],
            objects=child,
            decoders=decoders,
            ledger=ledger.objects,
            unit_ids=np.asarray(coordinates["neuron"].values),
            positions=positions,
            shapes=shapes,
            object_cache=object_cache,
            pool=pool,
            policy=policy,
            incomplete=incomplete,
            gaps=set(incomplete),
            filled={},
        )

    def treat_gaps(self, policy: NanPolicy, excluded: Collection[int]) -> None:
        """Fill the gaps of behavior and pupil center that the policy fills, but not of trials that are left out."""
        if policy.name != "interpolate":
            return
        for trial in sorted(self.incomplete.difference(excluded)):
            position = self.positions[trial]
            n_frames = int(self.n_frames_video[position])
            both = [getattr(self, name)[position] for name in ("behavior", "pupil_center")]
            frames = {frame for values in both for _, *span in find_gaps(values, n_frames) for frame in range(*span)}
            # All gaps of a trial, or none of them.
            copies = [values.copy() for values in both]
            if all(fill_gaps(values, n_frames, policy.n_frames) for values in copies):
                for values, filled in zip(both, copies, strict=True):
                    values[:] = filled
                self.filled[trial] = len(frames)
                self.gaps.discard(trial)

    def select_neurons(self, unit_ids: Sequence[int]) -> Recording:
        """Return the session with some of its neurons, in the order in which they are stored."""
        rows = np.flatnonzero(np.isin(self.unit_ids, np.asarray(unit_ids, np.int64)))
        if not np.array_equal(self.unit_ids[rows], np.asarray(unit_ids, np.int64)):
            raise UsageError(
                "neurons that the session lacks, or that are in another order",
                session=self.session,
                path=self.store,
                found=f"{len(rows)} of {len(unit_ids)} unit ids in its order",
                expected="unit ids of the session, in the store's order",
            )
        if len(rows) == len(self.unit_ids):
            return self
        return replace(self, coordinates=self.coordinates.isel(neuron=rows), unit_ids=self.unit_ids[rows], rows=rows)

    def require_no_gaps(self, trials: Sequence[int]) -> None:
        """Raise a :class:`StoreError` if one of these trials lacks behavior or pupil center at some frames."""
        incomplete = [trial for trial in trials if trial in self.gaps]
        if not incomplete:
            return
        trial, *others = incomplete
        position = self.positions[trial]
        variable, gaps = next(
            (name, gaps)
            for name in ("behavior", "pupil_center")
            if (gaps := find_gaps(getattr(self, name)[position], int(self.n_frames_video[position])))
        )
        spans = sorted({(start, stop) for _, start, stop in gaps})
        shown = ", ".join(f"{start}-{stop - 1}" if stop - start > 1 else f"{start}" for start, stop in spans[:3])
        n_frames = int(self.n_frames_video[position])
        both = [getattr(self, name)[position] for name in ("behavior", "pupil_center")]
        if all(can_fill(values, n_frames) for values in both):
            longest = max(stop - start for values in both for _, start, stop in find_gaps(values, n_frames))
            filling = (
                "--nan interpolate:N fills gaps of up to N frames between recorded ones "
                f"(the longest here has {longest})"
            )
        else:
            filling = "--nan interpolate:N cannot fill a gap at the trial's start or end, nor infinity"
        raise StoreError(
            f"{variable} holds values that are no numbers in valid frames",
            session=self.session,
            trial=trial,
            path=self.store,
            found=f"NaN or infinity in frames {shown}"
            + (f" and {len(spans) - 3} more spans" if len(spans) > 3 else "")
            + (f"; {count_things(len(others), 'more trial')} like it: {list_trials(others)}" if others else ""),
            expected="numbers in every frame",
            remedy=f"leave the trial out with --exclude {self.session.alias}:{trial}, or choose a policy: "
            f"--nan drop-trial leaves such trials out; {filling}",
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
            values = self._decode(variable, trial, position, n_frames)
            if variable == "responses" and self.rows is not None:
                # Time stays slowest in memory.
                values = np.take(values.T, self.rows, axis=1).T
            return check(variable, values)

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
                found=f"{count_things(len(self.positions), 'trial')}, "
                f"ids {min(self.positions)} to {max(self.positions)}",
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
                data = self.objects.read(key)
                # The network may have cut or changed it.
                for attempt in range(1, self.policy.n_attempts):
                    if stored.find_damage(data) is None:
                        break
                    time.sleep(self.policy.wait_s(attempt))
                    data = self.objects.read(key)
                return data

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
            remedy=f"leave the trial out with --exclude {self.session.alias}:{trial}; "
            f"{quote_command('inspect', self.store, self.session.alias)} lists such trials",
        )

    def _damaged(self, trial: int, key: str, found: str) -> StoreError:
        group = str(self.coordinates.attrs.get("group", self.session.name))
        return damaged_object(open_objects(self.store), self.session, group, key, found, trial=trial)


def _fill_ends(values: FloatArray, n_frames: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Fill (trial, row, time) values where they end a little before the video; return each trial's usable frames."""
    usable = np.array(n_frames, np.int64)
    for position, n in enumerate(n_frames.tolist()):
        n_recorded = count_recorded_frames(values[position], n)
        usable[position] = count_usable_frames(n_recorded, n)
        if n_recorded == usable[position] < n:
            fill_missing_end(values[position], n_recorded, n)
    return usable


_buffers = threading.local()


def _lend_buffer(size_bytes: int) -> memoryview:
    """Return this thread's buffer: fresh memory for each object costs more than reading it does."""
    buffer: np.ndarray | None = getattr(_buffers, "buffer", None)
    if buffer is None or buffer.nbytes < size_bytes:
        buffer = _buffers.buffer = np.empty(size_bytes, np.uint8)
    return buffer.data[:size_bytes]
