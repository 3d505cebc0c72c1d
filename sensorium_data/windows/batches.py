"""Training windows of a store in one call, for anybody's training loop."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NoReturn

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.sessions import Session, find_sessions
from sensorium_data.store import Store, StoreLike, open_store, parse_tiers
from sensorium_data.windows.gaps import NanPolicy
from sensorium_data.windows.loader import Batch, WindowLoader
from sensorium_data.windows.plans import EpochPlan, SessionTrials, WindowPosition, Windows, is_count, plan_in_turn
from sensorium_data.windows.subsets import choose_neurons, choose_trials
from sensorium_data.windows.trial_reader import TrialReader

__all__ = ["WindowBatches", "window_batches"]


class WindowBatches:
    """Epochs of training windows, a session a batch. Made by :func:`window_batches`.

    Iterating yields the batches of one epoch, and the next iteration those of the next epoch. :meth:`set_epoch` chooses
    the epoch of the next iteration. An epoch depends on its number and the arguments of :func:`window_batches` alone,
    so an interrupted training continues with the batches that it would have had.

    Attributes
    ----------
    store : Store
        What is read.
    sessions : tuple of Session
        In the order in which they take turns.
    reader : TrialReader
        Reads the trials, and keeps them in memory as far as its budget goes.
    epoch : int
        The epoch of the next iteration, from 0.
    """

    def __init__(
        self, loader: WindowLoader, trials: Sequence[SessionTrials], windows: Windows, *, batch_size: int, seed: int
    ) -> None:
        self.reader = loader.reader
        self.store: Store = loader.reader.store
        self.sessions: tuple[Session, ...] = loader.reader.sessions
        self.epoch = 0
        self._loader = loader
        self._trials = tuple(trials)
        self._windows = windows
        self._batch_size = batch_size
        self._seed = seed
        # What the first epoch would raise is raised now. Every epoch has as many batches.
        self._n_batches = len(self.plan(0))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._n_batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of an epoch, prepared ahead of their use, and move on to the next epoch."""
        epoch = self.epoch
        self.epoch += 1
        return self.iter_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, from 0."""
        self.epoch = _require_count("the epoch", epoch)

    def iter_epoch(self, epoch: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from some batch on, whatever was iterated over before.

        Raises
        ------
        StoreError
            If a trial cannot be read, is damaged, or holds values that are no numbers.
        UsageError
            If a number is negative or no whole number.
        """
        first_batch = _require_count("the first batch", first_batch)
        with closing(self._loader.iter_batches(self.plan(epoch), first_batch=first_batch)) as batches:
            for (batch,) in batches:
                yield batch

    def plan(self, epoch: int) -> EpochPlan:
        """Return which windows of which trials make up an epoch, and in which order."""
        return plan_in_turn(self._trials, self._windows, batch_size=self._batch_size, seed=self._seed, epoch=epoch)

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "windows are read by threads of this process and cannot be sent to another",
            remedy="call window_batches in the process that trains; give a DataLoader num_workers=0",
        )

    def __repr__(self) -> str:
        sessions = ", ".join(session.alias for session in self.sessions)
        n_trials = sum(len(trials) for trials in self._trials)
        return (
            f"<WindowBatches of {sessions}: {count_things(n_trials, 'trial')}, "
            f"{self._windows.n_frames} frames a window, {len(self)} batches of up to {self._batch_size} an epoch, "
            f"next epoch {self.epoch}>"
        )


def window_batches(
    store: StoreLike,
    *,
    sessions: str | Iterable[str | Session] | None = None,
    tier: str | Iterable[str] = "train",
    n_frames: int = 80,
    stride: int = 1,
    position: WindowPosition = "random",
    n_per_trial: int = 1,
    batch_size: int = 8,
    normalization: str = "competition",
    seed: int = 0,
    n_threads: int | None = None,
    cache_bytes: int | None = None,
    exclude: str | Iterable[str] = (),
    nan_policy: str | NanPolicy = "refuse",
    n_trials: int | None = None,
    neurons: str | int | None = None,
) -> WindowBatches:
    """Return the training windows of a store as batches, epoch after epoch.

    Each batch holds windows of one session; the sessions take turns until every trial of the session with the most
    trials was used. Trials are the valid ones of the tier whose responses are published. The same arguments give the
    same batches, whatever the threads and the cache.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    sessions : str or iterable of str, optional
        Aliases, full names, ``new``, ``old`` or ``all``, in the order in which they take turns; by default all sessions
        of the store.
    tier : str or iterable of str
        The tiers to take trials from.
    n_frames, stride, position, n_per_trial
        Form of the windows: see :class:`~sensorium_data.windows.Windows`.
    batch_size : int
        Windows in a batch; the last batch of a pass over a session holds what is left.
    normalization : str
        One of :data:`~sensorium_data.statistics.NORMALIZATIONS`; ``none`` leaves the values as they are stored.
    seed : int
        Decides the order of the trials and the places of the windows.
    n_threads, cache_bytes
        How trials are read and how much memory keeps them: see :class:`~sensorium_data.windows.TrialReader`.
    exclude : str or iterable of str
        Trials to leave out, ``SESSION:TRIAL`` each, for example ``F:17``.
    nan_policy : str or NanPolicy
        What becomes of trials with missing behavior or pupil center: ``refuse``; ``interpolate:N``, which fills gaps of
        up to N frames; ``drop-trial``. See :class:`~sensorium_data.windows.NanPolicy`.
    n_trials : int, optional
        Trials of each session, drawn by :func:`~sensorium_data.windows.choose_trials`; by default all.
    neurons : str or int, optional
        Neurons of each session: how many, or unit ids such as ``"1-50,73"``, as
        :func:`~sensorium_data.windows.choose_neurons` takes them; by default all.

    Returns
    -------
    WindowBatches
        Iterating yields :class:`~sensorium_data.windows.Batch` objects: ``videos`` (batch, time, height, width),
        ``responses`` (batch, neuron, time), ``behavior`` and ``pupil_center`` (batch, 2, time), float32.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened, or a trial lacks behavior or pupil center at some frames and the
        policy does not allow for that.
    TrialError
        If a trial to leave out does not exist.
    UnknownNameError
        If a session, a tier or the normalization does not exist.
    UsageError
        If a session has no such trial or neuron, a trial is shorter than a window, or a number is out of range.

    Examples
    --------
    >>> batches = window_batches("demo/store", sessions=["F", "G"], n_frames=80, seed=42)  # doctest: +SKIP
    >>> for epoch in range(3):                                                             # doctest: +SKIP
    ...     batches.set_epoch(epoch)
    ...     for batch in batches:
    ...         train_on(batch.videos, batch.responses)
    """
    windows = Windows(n_frames, stride, position, n_per_trial)
    opened = open_store(store)
    tiers = parse_tiers((tier,) if isinstance(tier, str) else tier, opened)
    if not tiers:
        raise UsageError("no tier to take trials from", expected="one tier or more", remedy='for example tier="train"')
    names = (sessions,) if isinstance(sessions, str) else sessions
    chosen = opened.sessions if names is None else tuple(one for name in names for one in find_sessions([name]))
    if not chosen:
        raise UsageError("no session to take trials from", path=opened.url, remedy="name sessions, or ingest some")
    full_names = [session.name for session in chosen]
    chosen_neurons = None
    if neurons is not None:
        chosen_neurons = {
            name: choose_neurons(name, opened[name]["neuron"].values, neurons, path=opened.url).tolist()
            for name in full_names
        }
    reader = TrialReader(
        opened,
        full_names,
        n_threads=n_threads,
        cache_bytes=cache_bytes,
        exclude=exclude,
        nan_policy=nan_policy,
        neurons=chosen_neurons,
    )
    trials = [choose_trials(reader.select_trials(name, tiers, labelled=True), n_trials) for name in full_names]
    normalizers = {name: reader.open_normalizer(normalization, name) for name in full_names}
    return WindowBatches(WindowLoader(reader, normalizers), trials, windows, batch_size=batch_size, seed=seed)


def _require_count(name: str, value: int) -> int:
    if not is_count(value, least=0):
        raise UsageError(name, found=repr(value), expected="a whole number from 0 up")
    return int(value)
