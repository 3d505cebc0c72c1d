"""Predictions in the competition's units, checked against the recording that they predict."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import PredictionsError, StoreError, UsageError
from sensorium_data.files import parse_json
from sensorium_data.predictions.reader import open_predictions
from sensorium_data.sessions import Session, Tier
from sensorium_data.statistics import describe_coverage, read_coverage, response_precision
from sensorium_data.store import Store

__all__ = ["StandardizedPredictions"]

_LABELS = ("tier", "n_frames", "movie_group", "stimulus", "responses_withheld", "valid")


class StandardizedPredictions:
    """One session's predictions beside its recording, trial by trial, in standardized units.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store.
    store : Store
        The session stores.
    session : Session
        A session of both.

    Raises
    ------
    PredictionsError
        If the session is not predicted, or its trials, tiers or trial lengths are not the recording's, or its neurons
        are not the recording's or some of them in the same order.
    StoreError
        If the session is not in the store.

    Attributes
    ----------
    session : Session
        The session.
    recording : xarray.Dataset
        The recorded session, with the predicted neurons alone.
    n_recorded_neurons : int
        How many neurons were recorded.
    left_out : frozenset of int
        Trials that were left out when the predictions were made.
    """

    def __init__(self, predictions: str, store: Store, session: Session) -> None:
        self.session = session
        self.recording = store[session]
        self._path = predictions
        self._store = store
        self._predicted = open_predictions(predictions, session.name)
        # Once, in memory: they are looked up for every trial.
        self._labels = {name: self.recording[name].values for name in _LABELS}
        self._rows = {trial: row for row, trial in enumerate(self.recording["trial"].values.tolist())}
        self._predicted_rows = {trial: row for row, trial in enumerate(self._predicted["trial"].values.tolist())}
        self.n_recorded_neurons = int(self.recording.sizes["neuron"])
        self._neuron_rows = self._find_neurons()
        if self._neuron_rows is not None:
            self.recording = self.recording.isel(neuron=self._neuron_rows)
        self.left_out = self._read_left_out()
        self._require_same_recording()

    @property
    def neurons(self) -> npt.NDArray[np.int64]:
        """Unit ids, in the order of all arrays' neurons."""
        return np.asarray(self.recording["neuron"].values, np.int64)

    @cached_property
    def precision(self) -> npt.NDArray[np.float32]:
        """(neuron, time): what brings raw responses to standardized units.

        Frames that the archive's statistics do not cover take the last known one's; see
        :func:`~sensorium_data.statistics.response_precision`.
        """
        std = self._read_statistics()["responses"].sel(statistic="std").values
        try:
            # Of all neurons first: their mean decides which are too still to be divided by their own.
            precision = np.asarray(response_precision(std), np.float32)
        except UsageError as error:
            raise StoreError(
                "the archive's statistics of the responses are unusable",
                session=self.session,
                path=self._store.url,
                found=error,
                remedy=f"{quote_command('verify', self._store.url)} checks the store",
            ) from error
        return precision if self._neuron_rows is None else np.asfortranarray(precision[self._neuron_rows])

    def describe_statistics(self, n_frames: int) -> tuple[str, ...]:
        """Return a sentence for each thing that the responses' statistics lack within the first ``n_frames`` frames."""
        statistics = self._read_statistics()
        if self._neuron_rows is not None:
            statistics = statistics.isel(neuron=self._neuron_rows)
        return describe_coverage(read_coverage(statistics, n_frames))

    def _read_statistics(self) -> xr.Dataset:
        # In this thread. On a Dask worker the default scheduler is the cluster, which would wait for this very task.
        return self._store.statistics(self.session)[["responses"]].load(scheduler="synchronous")

    def trials(self, tier: Tier) -> list[int]:
        """Return the ids of a tier's predicted trials, sorted; broken ones are among them."""
        return sorted(trial for trial in self._predicted_rows if self.label(trial, "tier") == tier)

    def unpredicted_trials(self, tier: Tier) -> list[int]:
        """Return the ids of a tier's valid trials that were recorded and not predicted."""
        return sorted(
            trial
            for trial in self._rows.keys() - self._predicted_rows.keys()
            if self.label(trial, "tier") == tier and self.is_valid(trial)
        )

    def label(self, trial: int, coordinate: str) -> str:
        """Return a trial's tier, movie_group or stimulus."""
        return str(self._labels[coordinate][self._rows[trial]])

    def n_frames(self, trial: int) -> int:
        """Return a trial's number of valid frames."""
        return int(self._labels["n_frames"][self._rows[trial]])

    def is_valid(self, trial: int) -> bool:
        """Whether a trial's stimulus is whole."""
        return bool(self._labels["valid"][self._rows[trial]])

    def is_withheld(self, trial: int) -> bool:
        """Whether the archive holds no responses for a trial."""
        return bool(self._labels["responses_withheld"][self._rows[trial]])

    def block(self, trial: int) -> xr.DataArray:
        """Return a trial's stored predictions, (neuron, time), not yet read or scaled."""
        return self._predicted["predictions"][self._predicted_rows[trial]]

    def finish(self, trial: int, block: npt.NDArray[np.float32], frames: range) -> npt.NDArray[np.float32]:
        """Cut the frames out of what :meth:`block` read, and bring them to standardized units.

        Parameters
        ----------
        trial : int
            The trial's id.
        block : np.ndarray
            (neuron, time), the values of :meth:`block`.
        frames : range
            The frames to return.

        Returns
        -------
        np.ndarray
            (neuron, frame), float32.

        Raises
        ------
        PredictionsError
            If a value is not finite.
        """
        cut = block[:, frames.start : frames.stop]
        finite = np.isfinite(cut)
        if not finite.all():
            missing = np.flatnonzero(~finite.all(axis=0)) + frames.start
            row = int(np.argmin(finite[:, missing[0] - frames.start]))
            n_neurons = int((~finite).any(axis=1).sum())
            raise PredictionsError(
                "frames that are needed were not predicted",
                session=self.session,
                trial=trial,
                path=self._path,
                found=f"no value at {count_things(missing.size, 'frame')} between {missing[0]} and {missing[-1]} "
                f"of {count_things(n_neurons, 'neuron')}, first of neuron {self.neurons[row]} at frame {missing[0]}",
                expected=f"every frame from {frames.start} to {frames.stop - 1}",
                remedy="predict with a model that loses fewer frames at the start of a trial",
            )
        if self._predicted.attrs["response_units"] == "raw":
            return np.asarray(cut * self.precision[:, frames.start : frames.stop], np.float32)
        return np.asarray(cut, np.float32)

    def read(self, trial: int, frames: range) -> npt.NDArray[np.float32]:
        """Read a trial's frames in standardized units, (neuron, frame); see :meth:`finish`."""
        # In this thread: a pool's would hold on to memory, and one block keeps none of them busy.
        return self.finish(trial, self.block(trial).compute(scheduler="synchronous").values, frames)

    @property
    def trained_tiers(self) -> frozenset[str]:
        """Tiers other than ``train`` that a run was trained on which predicted these, as far as it is recorded."""
        tiers = self._predicted.attrs.get("trained_tiers", "[]")
        try:
            found = parse_json(tiers) if isinstance(tiers, str) else tiers
        except ValueError:
            # Somebody changed it; what it would say is no score.
            found = []
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    def _read_left_out(self) -> frozenset[int]:
        try:
            by_session = parse_json(self._predicted.attrs.get("left_out", "{}"))
            return frozenset(int(trial) for trial in by_session.get(self.session.name, ()))
        except (ValueError, TypeError, AttributeError) as error:
            raise PredictionsError(
                "the predictions store is damaged",
                session=self.session,
                path=self._path,
                found="an attribute left_out that lists no trials",
                remedy="predict again",
            ) from error

    def _find_neurons(self) -> npt.NDArray[np.int64] | None:
        """Return the predicted neurons' places among the recorded ones; None if all are predicted."""
        predicted, recorded = self._predicted["neuron"].values, self.recording["neuron"].values
        if np.array_equal(predicted, recorded):
            return None
        rows = np.flatnonzero(np.isin(recorded, predicted))
        if not np.array_equal(recorded[rows], predicted):
            raise PredictionsError(
                "the predictions are of other neurons than the recording",
                session=self.session,
                path=self._path,
                found=f"{count_things(predicted.size, 'neuron')}, {len(rows)} of them the recording's",
                expected=f"the {recorded.size} in {self._store.url}, or some of them, in their order",
                remedy="give the store that was predicted, or predict again if the session has a newer version",
            )
        return rows

    def _require_same_recording(self) -> None:
        predicted = self._predicted
        labels = {name: predicted[name].values for name in ("tier", "n_frames")}
        for trial, row in self._predicted_rows.items():
            if trial not in self._rows:
                raise PredictionsError(
                    "a predicted trial is not in the recording",
                    session=self.session,
                    trial=trial,
                    path=self._path,
                    remedy="give the store that was predicted",
                )
            for name in ("tier", "n_frames"):
                found, expected = labels[name][row], self._labels[name][self._rows[trial]]
                if found != expected:
                    raise PredictionsError(
                        f"a predicted trial's {name} is not the recording's",
                        session=self.session,
                        trial=trial,
                        path=self._path,
                        found=found,
                        expected=expected,
                        remedy="give the store that was predicted",
                    )
