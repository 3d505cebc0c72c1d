"""Whole trials from session stores, kept in memory as far as a budget allows.

A block is everything that was recorded in one trial. Reading one is safe from any thread, and most of it runs
beside Python: :mod:`sensorium_data.windows.loader` reads several at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.files import (
    LocalObjects,
    ObjectCache,
    RetryPolicy,
    default_object_cache,
    open_objects,
)
from sensorium_data.machine import count_cores
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.statistics import Normalizer, open_normalizer
from sensorium_data.store import (
    ArrayPool,
    Store,
    StoreLike,
    list_trials,
    open_store,
    parse_exclusions,
    require_trials,
)
from sensorium_data.windows.block_cache import BlockCache, default_cache_bytes
from sensorium_data.windows.gaps import NanPolicy
from sensorium_data.windows.plans import SessionTrials
from sensorium_data.windows.recording import RecordedTrial, Recording

__all__ = ["TrialReader"]

#: Bound on what is kept on the local disk of stores elsewhere, unless told otherwise.
_OBJECT_CACHE_BYTES = 20 * 2**30

# A few batches and the trials that they are cut from.
_IDLE_BYTES = 2**29


class TrialReader:
    """Reads trial blocks, and keeps as many in memory as a budget allows.

    Every object is compared with the ledger as it is read: damage on a disk or on the way is an error here
    and never a number in a model. So is a frame without behavior or pupil center, unless ``nan_policy`` says otherwise.

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
    exclude : str or iterable of str
        Trials that are never selected, ``SESSION:TRIAL`` each, for example ``F:17``; also of sessions of the store that
        are not read.
    nan_policy : str or NanPolicy
        What becomes of trials with missing behavior or pupil center: ``refuse``, ``interpolate:N`` or ``drop-trial``;
        see :class:`~sensorium_data.windows.NanPolicy`.
    neurons : mapping of str to sequence of int, optional
        Unit ids of the neurons to read, in the store's order, by full session name; all of a session that is not there.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened, or an exclusion is of a session that it lacks.
    TrialError
        If an exclusion is of a trial that its session lacks.
    UsageError
        If a number is out of range, no session is given, or an exclusion or the policy has another form.
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
        exclude: str | Iterable[str] = (),
        nan_policy: str | NanPolicy = "refuse",
        neurons: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if not sessions:
            raise UsageError("no session to read", path=store.url if isinstance(store, Store) else store)
        if n_threads is not None and n_threads < 1:
            raise UsageError("reading needs a thread", found=n_threads, expected="at least 1")
        policy = policy or RetryPolicy()
        self.nan_policy = NanPolicy.parse(nan_policy)
        self._excluded = parse_exclusions(exclude)
        #: What is read.
        self.store = open_store(store if isinstance(store, Store) else Store(open_objects(store, policy)))
        is_local = isinstance(self.store.objects, LocalObjects)
        if is_local:
            object_cache = None
        elif object_cache is None:
            object_cache = default_object_cache(_OBJECT_CACHE_BYTES)
        self.sessions: tuple[Session, ...] = tuple(find_session(name) for name in sessions)
        self.n_threads = n_threads if n_threads is not None else min(8, count_cores()) if is_local else 8
        self.cache: BlockCache[RecordedTrial] = BlockCache(
            cache_bytes if cache_bytes is not None else default_cache_bytes()
        )
        self._reads_responses = reads_responses
        self.pool = ArrayPool(_IDLE_BYTES)
        self._recordings: dict[str, Recording] = {}
        for session in self.sessions:
            recording = Recording.open(self.store, session, object_cache, self.pool, policy)
            recording.treat_gaps(self.nan_policy, self._excluded.get(session.name, frozenset()))
            if neurons is not None and session.name in neurons:
                recording = recording.select_neurons(neurons[session.name])
            self._recordings[session.name] = recording
        require_trials(self.store, self._excluded)

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
        """Return a session's valid trials of some tiers, but for those that are left out.

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
        StoreError
            If behavior or pupil center of one is missing at some frames, and the policy does not allow for that.
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
        ids = coordinates["trial"].values
        left_out = np.isin(ids, sorted(self.left_out(name)))
        if not (chosen & ~left_out).any():
            raise UsageError(
                f"every trial of tier {', '.join(names)} is left out",
                session=recording.session,
                path=self.store.url,
                found=f"{self._count_left_out(name, ids[chosen])} of {np.count_nonzero(chosen)}",
                expected="at least one that is not",
                remedy="leave fewer trials out, or leave the session out",
            )
        chosen &= ~left_out
        recording.require_no_gaps(ids[chosen].tolist())
        return SessionTrials(
            session=name,
            trials=tuple(int(trial) for trial in coordinates["trial"].values[chosen]),
            n_frames=tuple(
                int(n) for n in (recording.n_frames_labelled if labelled else recording.n_frames_video)[chosen]
            ),
        )

    def left_out(self, session: str) -> frozenset[int]:
        """Return the ids of a session's trials that are never selected: excluded, or dropped by the policy for NaN."""
        recording = self._recording(session)
        dropped = recording.gaps if self.nan_policy.name == "drop-trial" else ()
        return self._excluded.get(recording.session.name, frozenset()) | frozenset(dropped)

    def describe_left_out(
        self, session: str, tiers: Iterable[Tier], used: Collection[int] | None = None
    ) -> tuple[str, ...]:
        """Return a sentence for each way in which trials of some tiers are left out or were filled.

        ``used`` are the ids of the trials that are used, where that is not all others of the tiers.
        """
        recording = self._recording(session)
        coordinates = recording.coordinates
        of_tiers = np.isin(coordinates["tier"].values.astype(str), [str(tier) for tier in tiers])
        ids = set(coordinates["trial"].values[of_tiers & coordinates["valid"].values].tolist())
        where = f"Session {recording.session}"
        excluded = self._excluded.get(recording.session.name, frozenset()) & ids
        notes = []
        if excluded:
            notes.append(
                f"{where}: left out as asked: {count_things(len(excluded), 'trial')}: {list_trials(excluded)}."
            )
        dropped = self.left_out(session) & ids - excluded
        if dropped:
            notes.append(
                f"{where}: left out for NaN in behavior or pupil center: {count_things(len(dropped), 'trial')}: "
                f"{list_trials(dropped)}."
            )
        filled = {trial: n_frames for trial, n_frames in recording.filled.items() if trial in ids - excluded}
        if used is not None:
            filled = {trial: n_frames for trial, n_frames in filled.items() if trial in used}
        if filled:
            notes.append(
                f"{where}: behavior or pupil center interpolated at {count_things(sum(filled.values()), 'frame')} of "
                f"{count_things(len(filled), 'trial')}: {list_trials(filled)}."
            )
        return tuple(notes)

    def open_normalizer(
        self, name: str, session: str, *, exclude: str | Iterable[str] | None = None, nan_policy: str | None = None
    ) -> Normalizer:
        """Return a session's normalization for the neurons that are read.

        Where it rests on statistics of training trials, those that are left out do not count.

        Parameters
        ----------
        name : str
            One of :data:`sensorium_data.statistics.NORMALIZATIONS`.
        session : str
            Alias or full name.
        exclude, nan_policy : optional
            Which trials do not count, where that differs from what is read: a run predicts on the scale that it was
            trained on.

        Raises
        ------
        UnknownNameError, StoreError, UsageError
            As :func:`sensorium_data.statistics.open_normalizer` does.
        """
        recording = self._recording(session)
        policy = self.nan_policy if nan_policy is None else NanPolicy.parse(nan_policy)
        excluded = self._excluded if exclude is None else parse_exclusions(exclude)
        left_out = excluded.get(recording.session.name, frozenset())
        if policy.name == "drop-trial":
            left_out |= recording.incomplete
        normalizer = open_normalizer(
            name,
            self.store,
            recording.session.name,
            exclude=left_out,
            skips_missing=policy.name == "interpolate",
        )
        return normalizer if recording.rows is None else normalizer.select_neurons(recording.rows)

    def _count_left_out(self, session: str, trials: np.ndarray) -> str:
        excluded = self._excluded.get(session, frozenset())
        n_excluded = sum(trial in excluded for trial in trials.tolist())
        n_dropped = len(trials) - n_excluded
        parts = [f"{n_excluded} excluded"] * bool(n_excluded) + [f"{n_dropped} dropped for NaN"] * bool(n_dropped)
        return " and ".join(parts)

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

    def _recording(self, session: str) -> Recording:
        name = find_session(session).name
        if name not in self._recordings:
            raise UsageError(
                "the session was not opened",
                session=name,
                path=self.store.url,
                expected=f"one of {', '.join(s.name for s in self.sessions)}",
            )
        return self._recordings[name]
