"""Whole trials from session stores: read concurrently, kept in memory as far as a budget allows.

A block is everything that was recorded in one trial. It is read and decoded by one dask task, in a thread:
forked worker processes and Zarr deadlock each other, and threads share what they have read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed

from sensorium_data.errors import StoreError, TrialError, UsageError
from sensorium_data.objects import open_objects
from sensorium_data.sampling import SessionTrials
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.store import open_session
from sensorium_data.versions import current_group

__all__ = ["FloatArray", "RecordedTrial", "TrialReader", "default_cache_bytes"]

FloatArray = npt.NDArray[np.float32]

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class RecordedTrial:
    """Everything recorded in one trial, as stored, without the frames that only pad it.

    Attributes
    ----------
    session : str
        The session's full name.
    trial : int
        The trial's id.
    videos : ndarray of float32, shape (time, height, width)
        Luminance, 0-255.
    responses : ndarray of float32, shape (neuron, time), or None
        None where the archive withholds them, or where they were not asked for.
    behavior : ndarray of float32, shape (2, time)
        Pupil dilation and running speed.
    pupil_center : ndarray of float32, shape (2, time)
        Pixels of the eye camera.
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

    @property
    def size_bytes(self) -> int:
        """Memory that the arrays take."""
        arrays = (self.videos, self.responses, self.behavior, self.pupil_center)
        return sum(int(array.nbytes) for array in arrays if array is not None)


class TrialReader:
    """Reads trial blocks, several at once, and keeps as many in memory as a budget allows.

    What was read stays in memory until the budget is full; nothing is evicted. Training visits every trial once
    an epoch in an order that is new each time, where evicting the least recently used would keep just the
    trials that are needed last.

    Parameters
    ----------
    store : str
        Path or URL of the store's root.
    sessions : sequence of str
        Aliases or full names.
    reads_responses : bool
        Prediction needs none, and they are most of the bytes.
    n_threads : int, optional
        Blocks read at once; by default the number of cores, at most 8.
    cache_bytes : int, optional
        Memory for blocks that are kept; 0 keeps none; by default :func:`default_cache_bytes`.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened.
    UsageError
        If a number is out of range or no session is given.
    """

    def __init__(
        self,
        store: str,
        sessions: Sequence[str],
        *,
        reads_responses: bool = True,
        n_threads: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        if not sessions:
            raise UsageError("no session to read", path=store)
        if n_threads is not None and n_threads < 1:
            raise UsageError("reading needs a thread", found=n_threads, expected="at least 1")
        if cache_bytes is not None and cache_bytes < 0:
            raise UsageError("the cache cannot be negative", found=f"{cache_bytes} bytes", expected="at least 0")
        self.store = store
        self.sessions: tuple[Session, ...] = tuple(find_session(name) for name in sessions)
        self.n_threads = n_threads if n_threads is not None else min(8, os.cpu_count() or 1)
        self.cache_bytes = cache_bytes if cache_bytes is not None else default_cache_bytes()
        self._reads_responses = reads_responses
        self._recordings = {session.name: _Recording.open(store, session) for session in self.sessions}
        self._cache: dict[tuple[str, int], RecordedTrial] = {}
        self._cached_bytes = 0
        self._cache_lock = threading.Lock()

    @property
    def cached_bytes(self) -> int:
        """Memory that the kept blocks take now."""
        return self._cached_bytes

    def coordinates(self, session: str) -> xr.Dataset:
        """Return a session's coordinates, in memory."""
        return self._recording(session).coordinates

    def select_trials(self, session: str, tiers: Iterable[Tier], *, labelled: bool = False) -> SessionTrials:
        """Return a session's valid trials of some tiers.

        Parameters
        ----------
        session : str
            Alias or full name.
        tiers : iterable of Tier
            Which trials.
        labelled : bool
            Only trials whose responses are published.

        Raises
        ------
        UsageError
            If there is none.
        """
        name = find_session(session).name
        names = [str(tier) for tier in tiers]
        coordinates = self._recording(name).coordinates
        tier_of_trial = [str(tier) for tier in coordinates["tier"].values.tolist()]
        chosen = np.array([tier in names for tier in tier_of_trial]) & coordinates["valid"].values
        if labelled:
            chosen &= ~coordinates["responses_withheld"].values
        if not chosen.any():
            raise UsageError(
                f"no valid trial of tier {', '.join(names)}" + (" with published responses" if labelled else ""),
                session=name,
                path=self.store,
                found=f"tiers {', '.join(sorted(set(tier_of_trial)))}",
                remedy="choose another tier, or leave the session out",
            )
        return SessionTrials(
            session=name,
            trials=tuple(int(trial) for trial in coordinates["trial"].values[chosen]),
            n_frames=tuple(int(n) for n in coordinates["n_frames"].values[chosen]),
        )

    def read(self, session: str, trial: int) -> RecordedTrial:
        """Return one trial's block; its arrays are read-only, since the cache shares them.

        Raises
        ------
        TrialError
            If the session has no such trial.
        StoreError
            If a valid frame holds something that is no number.
        """
        recording = self._recording(session)
        key = (recording.session.name, trial)
        block = self._cache.get(key)
        if block is not None:
            return block
        block = recording.read_block(trial, reads_responses=self._reads_responses)
        with self._cache_lock:
            if key not in self._cache and self._cached_bytes + block.size_bytes <= self.cache_bytes:
                self._cache[key] = block
                self._cached_bytes += block.size_bytes
        return block

    def has_responses(self, session: str, trial: int) -> bool:
        """Return whether a trial's block will have responses."""
        return self._reads_responses and not self._recording(session).is_withheld(trial)

    def map_blocks(
        self, function: Callable[[RecordedTrial, int], _Result], session: str, trials: Sequence[int]
    ) -> list[_Result]:
        """Read blocks at once, one dask task each, and return what ``function`` makes of each, in order.

        Parameters
        ----------
        function : callable
            Takes a block and its position in ``trials``; runs in the thread that read the block.
        session : str
            Alias or full name.
        trials : sequence of int
            Their ids.
        """

        def read_one(position: int) -> _Result:
            return function(self.read(session, trials[position]), position)

        tasks = [delayed(read_one, pure=False, traverse=False)(position) for position in range(len(trials))]
        results = compute(*tasks, scheduler="threads", num_workers=self.n_threads, optimize_graph=False)  # type: ignore[no-untyped-call]
        return list(results)

    def _recording(self, session: str) -> _Recording:
        name = find_session(session).name
        if name not in self._recordings:
            raise UsageError(
                "the session was not opened",
                session=name,
                path=self.store,
                expected=f"one of {', '.join(s.name for s in self.sessions)}",
            )
        return self._recordings[name]


def default_cache_bytes() -> int:
    """Return a quarter of the memory this process may use: the machine's, or its control group's if that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit_file in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit_file.is_file():
            limit = limit_file.read_text().strip()
            if limit.isdecimal():
                total = min(total, int(limit))
    return total // 4


@dataclass(frozen=True)
class _Recording:
    """One session, open: its coordinates in memory and its arrays on disk."""

    session: Session
    store: str
    coordinates: xr.Dataset
    arrays: Mapping[str, Any]
    positions: Mapping[int, int]

    @classmethod
    def open(cls, store: str, session: Session) -> _Recording:
        dataset = open_session(store, session.name)
        coordinates = dataset.drop_vars(list(dataset.data_vars))
        # Blocks are read from the Zarr arrays themselves: a trial is one chunk of each, and going through
        # dask arrays would build and run four graphs for every block.
        objects = open_objects(store)
        group = zarr.open_group(objects.child(current_group(objects, session)).zarr_store(), mode="r")
        arrays = {name: group[name] for name in ("videos", "responses", "behavior", "pupil_center")}
        positions = {int(trial): position for position, trial in enumerate(coordinates["trial"].values)}
        return cls(session, store, coordinates, arrays, positions)

    def is_withheld(self, trial: int) -> bool:
        return bool(self.coordinates["responses_withheld"].values[self._position(trial)])

    def read_block(self, trial: int, *, reads_responses: bool) -> RecordedTrial:
        return RecordedTrial(
            session=self.session.name,
            trial=trial,
            videos=self._read("videos", trial),
            responses=self._read("responses", trial) if reads_responses and not self.is_withheld(trial) else None,
            behavior=self._read("behavior", trial),
            pupil_center=self._read("pupil_center", trial),
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

    def _read(self, variable: str, trial: int) -> FloatArray:
        position = self._position(trial)
        n_frames = int(self.coordinates["n_frames"].values[position])
        # Cut here and not by Zarr, which takes twice as long for a part of a chunk as for all of it.
        whole = np.asarray(self.arrays[variable][position], dtype=np.float32)
        array = whole[:n_frames] if variable == "videos" else whole[:, :n_frames]
        if array.nbytes < 0.9 * whole.nbytes:
            array = array.copy()  # rather than keep the padding in memory for as long as the view lives
        # A chunk that is missing reads as NaN without any error; a sum finds that at the price of one pass.
        if not np.isfinite(array.sum()):
            n_bad = int(np.count_nonzero(~np.isfinite(array)))
            raise StoreError(
                f"{variable} holds values that are no numbers in valid frames",
                session=self.session.name,
                trial=trial,
                path=self.store,
                found=f"{n_bad} of {array.size}",
                expected="none",
                remedy="verify the store; convert the session again if it is damaged",
            )
        array.setflags(write=False)
        return array
