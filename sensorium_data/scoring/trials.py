"""Which trials of a session can be scored, and their responses, predictions and, where the truth is known, rates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError
from sensorium_data.frames import N_SKIPPED_FRAMES, FramesProfile, frames_of
from sensorium_data.predictions import StandardizedPredictions
from sensorium_data.recorded_frames import count_recorded_frames
from sensorium_data.scoring.withheld import describe_withheld
from sensorium_data.sessions import Session, Tier
from sensorium_data.store import Store, list_trials

__all__ = ["NEURONS_NOTE", "RepeatGroup", "ScoredSession", "TrialSignals"]

#: How the note ends that says how many of a session's neurons have a score.
NEURONS_NOTE = "neurons are predicted, and scored"

Block = npt.NDArray[np.floating]


@dataclass(frozen=True)
class RepeatGroup:
    """Trials that show the same movie.

    Attributes
    ----------
    stimulus : str
        The class of the movie.
    trials : tuple of int
        Their ids, ascending.
    """

    stimulus: str
    trials: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TrialSignals:
    """The scored frames of one trial, (neuron, frame) each, in standardized units.

    Attributes
    ----------
    response, prediction : np.ndarray
        What was recorded, or is known of a simulation, and what was predicted.
    rate : np.ndarray or None
        The noiseless rate behind the response, where it is known.
    mean_raw_response : float
        Mean over neurons and frames, in raw units.
    n_missing_frames : int
        Frames at the trial's end that are not among these, since their responses are missing.
    """

    response: Block
    prediction: Block
    rate: Block | None
    mean_raw_response: float
    n_missing_frames: int = 0


class ScoredSession:
    """One session's predictions beside what they are scored against.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store.
    store : Store
        The session stores.
    truth : str or None
        Truth of simulated sessions; it stands in for withheld responses.
    session : Session
        Which one.
    tiers : sequence of Tier
        Tiers to score.
    frames : str
        Which frames are scored, a profile of :mod:`sensorium_data.frames`.
    exclude : collection of int
        Ids of trials that are not scored.

    Raises
    ------
    PredictionsError
        If the predictions do not fit the recording.
    StoreError
        If the session is not in the store, or the truth is another simulation's.

    Attributes
    ----------
    session : Session
        The session.
    recording : xarray.Dataset
        The recorded session, with the predicted neurons alone.
    neurons : np.ndarray
        Their unit ids.
    scorable : dict of Tier to list of int
        The trials of each tier that can be scored, ascending.
    unscored : list of str
        What has no score, and why, one sentence each.
    notes : tuple of str
        What was odd about the recording, one sentence each.
    """

    def __init__(
        self,
        predictions: str,
        store: Store,
        truth: str | None,
        session: Session,
        tiers: Sequence[Tier],
        frames: FramesProfile,
        exclude: Collection[int] = (),
    ) -> None:
        self.session = session
        self._exclude = frozenset(exclude)
        self._predictions = StandardizedPredictions(predictions, store, session)
        self._truth_path = truth
        self._truth = None if truth is None else _open_truth(truth, self._predictions)
        self._frames = frames
        self.recording = self._predictions.recording
        self.neurons = self._predictions.neurons
        self.unscored: list[str] = []
        self.scorable = {tier: self._find_scorable(tier) for tier in tiers}
        last = max((self.frames(trial).stop for trials in self.scorable.values() for trial in trials), default=0)
        notes = list(self._predictions.describe_statistics(last)) if last else []
        n_recorded = self._predictions.n_recorded_neurons
        if len(self.neurons) < n_recorded:
            notes.append(f"{len(self.neurons)} of {n_recorded} {NEURONS_NOTE}")
        trained = [str(tier) for tier in tiers if self.scorable[tier] and str(tier) in self._predictions.trained_tiers]
        if trained:
            notes.append(f"the model was trained on {', '.join(trained)}: no scores on movies that are new to it")
        self.notes = tuple(f"session {session}: {note}" for note in notes)

    @property
    def has_rates(self) -> bool:
        """Whether the noiseless rates are known."""
        return self._truth is not None

    def group_repeats(self, tier: Tier) -> list[RepeatGroup]:
        """Return the tier's trials movie by movie."""
        groups: dict[tuple[str, str], list[int]] = {}
        for trial in self.scorable[tier]:
            # A trial whose movie is not known repeats nothing.
            movie = self._predictions.label(trial, "movie_group") or f"trial {trial}"
            groups.setdefault((self._predictions.label(trial, "stimulus"), movie), []).append(trial)
        return [RepeatGroup(stimulus, tuple(trials)) for (stimulus, _), trials in groups.items()]

    def frames(self, trial: int) -> range:
        """Return the scored frames of a trial."""
        return frames_of(self._frames, self._predictions.n_frames(trial))

    def read_trial(self, trial: int) -> TrialSignals:
        """Read a trial; may be called from several threads.

        Where the responses end before the video does, the frames after their end are left out.

        Raises
        ------
        PredictionsError
            If a scored frame was not predicted.
        """
        frames = self.frames(trial)
        time = slice(frames.start, frames.stop)
        lazy = [self._predictions.block(trial)]
        if self._truth is not None and self._predictions.is_withheld(trial):
            lazy.append(self._truth["responses"].sel(trial=trial))
        else:
            lazy.append(self.recording["responses"].sel(trial=trial))
        if self._truth is not None:
            lazy.append(self._truth["rates"].sel(trial=trial))
        # In this thread: trials are read side by side, and a pool for each would hold on to memory.
        try:
            block, response, *rates = compute(*(array.data for array in lazy), scheduler="synchronous")  # type: ignore[no-untyped-call]
        except ValueError as error:
            # Of a checksum in the truth: what else is read is compared with its ledger.
            from sensorium_data.simulation import SIMULATE_AGAIN

            raise StoreError(
                "the truth of the simulation is damaged",
                session=self.session,
                trial=trial,
                path=self._truth_path,
                found=error,
                remedy=SIMULATE_AGAIN,
            ) from error
        n_recorded = count_recorded_frames(response, frames.stop)
        # Without a scored frame that was recorded there is nothing to cut, and the neurons score 0.
        n_missing = frames.stop - n_recorded if n_recorded > frames.start else 0
        time = slice(frames.start, frames.stop - n_missing)
        precision = self._predictions.precision[:, time]
        raw = response[:, time]
        return TrialSignals(
            response=raw * precision,
            prediction=self._predictions.finish(trial, block, range(time.start, time.stop)),
            rate=rates[0][:, time] * precision if rates else None,
            mean_raw_response=float(np.mean(raw, dtype=np.float64)),
            n_missing_frames=n_missing,
        )

    def _find_scorable(self, tier: Tier) -> list[int]:
        predicted = self._predictions
        trials = predicted.trials(tier)
        unpredicted = predicted.unpredicted_trials(tier)
        # Sessions of other labs may lack a tier.
        if unpredicted and not trials:
            self.unscored.append(f"session {self.session}, {tier}: no trial was predicted")
        if trials and unpredicted:
            n_left_out = len(predicted.left_out.intersection(unpredicted))
            n_in_words = count_things(len(unpredicted), "trial")
            verb = "was" if len(unpredicted) == 1 else "were"
            reason = f", {n_left_out} of them left out as asked or for NaN" if n_left_out else ""
            self.unscored.append(f"session {self.session}, {tier}: {n_in_words} of it {verb} not predicted{reason}")
        excluded = self._exclude.intersection(trials)
        if excluded:
            self.unscored.append(
                f"session {self.session}, {tier}: {len(excluded)} of {len(trials)} trials are left out as asked: "
                f"{list_trials(excluded)}"
            )
            trials = [trial for trial in trials if trial not in excluded]
        scorable, withheld = [], []
        for trial in trials:
            where = f"session {self.session}, {tier}, trial {trial}"
            if not predicted.is_valid(trial):
                self.unscored.append(f"{where}: its stimulus is broken")
            elif not self.frames(trial):
                n_frames = predicted.n_frames(trial)
                self.unscored.append(
                    f"{where}: it has {count_things(n_frames, 'frame')}, "
                    f"and the first {N_SKIPPED_FRAMES} are not scored"
                )
            elif predicted.is_withheld(trial) and self._truth is None:
                withheld.append(trial)
            else:
                scorable.append(trial)
        if withheld:
            self.unscored.append(describe_withheld(self.session, tier, len(withheld), len(trials)))
        return scorable


def _open_truth(truth: str, predictions: StandardizedPredictions) -> xr.Dataset:
    # The simulator is needed by those alone who simulate.
    from sensorium_data.simulation import open_truth

    dataset: xr.Dataset = open_truth(truth, predictions.session.name)
    if dataset.sizes["neuron"] == predictions.n_recorded_neurons > predictions.neurons.size:
        # Of all recorded neurons, as predictions of some of them are scored.
        dataset = dataset.isel(neuron=np.isin(dataset["neuron"].values, predictions.neurons))
    if not np.array_equal(dataset["neuron"].values, predictions.neurons):
        raise StoreError(
            "the truth is of other neurons than the recording",
            session=predictions.session,
            path=truth,
            found=count_things(dataset.sizes["neuron"], "neuron"),
            expected=f"{predictions.neurons.size}",
            remedy="give the truth that was written with the archives",
        )
    missing = sorted(set(predictions.recording["trial"].values.tolist()) - set(dataset["trial"].values.tolist()))
    if missing:
        raise StoreError(
            "the truth lacks trials of the recording",
            session=predictions.session,
            trial=missing[0],
            path=truth,
            remedy="give the truth that was written with the archives",
        )
    return dataset
