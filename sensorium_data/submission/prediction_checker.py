"""The predicted values of one predictions file: their shapes, their frames profile, and whether they are finite."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensorium_data.counting import count_things
from sensorium_data.frames import FRAMES_PROFILES, FramesProfile, frames_of
from sensorium_data.submission.cells import MISSING, Prediction, read_prediction
from sensorium_data.submission.expectation import ExpectedSession
from sensorium_data.submission.findings import Findings

__all__ = ["PredictionChecker"]

_MAX_EXAMPLES = 20


class PredictionChecker:
    """Checks the predictions of a file, row by row, and then what they have in common.

    Parameters
    ----------
    file : str
        What to call the file.
    expected : mapping of str to ExpectedSession
        The scored sessions of the store, by full name.
    findings : Findings
        Where to put what is found.
    frames : str, optional
        The frames profile that the file has to be of; by default any.

    Attributes
    ----------
    profiles : tuple of str
        The frames profiles that most of the rows are of, once the file is concluded; empty if none was recognized.
    """

    def __init__(
        self,
        file: str,
        expected: Mapping[str, ExpectedSession],
        findings: Findings,
        frames: FramesProfile | None,
    ) -> None:
        self.profiles: tuple[FramesProfile, ...] = ()
        self._file = file
        self._expected = expected
        self._findings = findings
        self._frames = frames
        self._has_shapes = False
        self._has_values = False
        self._by_profiles: dict[tuple[FramesProfile, ...], _Tally] = {}
        self._ranges: dict[str, _Range] = {}

    def check(
        self, session: ExpectedSession | None, trial: int | None, cell: pa.Scalar, place: Mapping[str, Any]
    ) -> None:
        """Check a row's prediction, as far as its session and trial are known.

        Parameters
        ----------
        session : ExpectedSession or None
            The row's session.
        trial : int or None
            The row's trial.
        cell : pyarrow.Scalar
            The prediction.
        place : mapping
            The row, and its session and trial as :meth:`Findings.violate` takes them.
        """
        prediction = read_prediction(cell)
        shapes = _possible_shapes(session, trial)
        expected = f"{shapes['official']}, or {shapes['50-298']} in the profiles 50-298 and 51-299" if shapes else None
        if isinstance(prediction, str) and prediction == MISSING:
            self._has_shapes = True
            self._violate("frames", "a prediction is missing", **place, found="null", expected=expected)
        if isinstance(prediction, str):
            return  # Otherwise its column is of a wrong type, which has been said.
        has_shape = self._check_shape(session, shapes, expected, prediction, place)
        self._has_values = True
        finite = np.isfinite(prediction.values)
        if not finite.all():
            first = int(np.flatnonzero(~finite)[0])
            neuron, frame = _locate(prediction, first)
            unit = (
                f"unit {session.neurons[neuron]} at frame {frame}"
                if has_shape and session is not None
                else f"value {frame} of list {neuron}"
            )
            self._violate(
                "values",
                "values that are not finite",
                **place,
                found=f"{np.count_nonzero(~finite)}, the first for {unit}",
                expected="numbers",
                remedy="check the model",
            )
        elif has_shape and session is not None:
            values = prediction.values.reshape(prediction.shape)
            self._ranges.setdefault(session.session.name, _Range(values.shape[0])).add(values)

    def conclude(self, *, has_all: bool) -> None:
        """End the checks of which all could be told from the columns, or anything was compared."""
        if has_all or self._has_shapes:
            self._conclude_frames()
        if has_all or self._has_values:
            self._findings.conclude(self._file, "values", "every value is finite")
            self._warn_of_values()

    def _violate(self, check: str, problem: str, **parts: Any) -> None:
        self._findings.violate(self._file, check, problem, **parts)

    def _check_shape(
        self,
        session: ExpectedSession | None,
        shapes: Mapping[FramesProfile, tuple[int, int]],
        expected: str | None,
        prediction: Prediction,
        place: Mapping[str, Any],
    ) -> bool:
        """Return whether a prediction has the neurons and frames that it has to have."""
        lengths = prediction.n_frames
        if lengths is None:
            return False
        violate = partial(self._violate, "frames", **place)
        self._has_shapes = True
        found = prediction.shape
        if found is None:
            violate(
                problem="the neurons of a prediction have different numbers of frames",
                found=f"{lengths.min()} to {lengths.max()}",
                expected=expected,
                remedy="give every neuron the same frames",
            )
            return False
        if not shapes:
            if session is not None and session.neurons.size != found[0]:
                violate(
                    problem="a prediction of another number of neurons",
                    found=found,
                    expected=count_things(session.neurons.size, "neuron"),
                    remedy="write one list of frames for each neuron",
                )
            return False
        profiles = tuple(profile for profile, shape in shapes.items() if shape == found)
        if not profiles:
            transposed = found[::-1] in shapes.values()
            violate(
                problem="wrong shape of a prediction",
                found=found,
                expected=expected,
                remedy="transpose it: neurons first"
                if transposed
                else "give the frames of one profile, which all end with the video",
            )
            return False
        if len(profiles) < len(FRAMES_PROFILES):  # All profiles agree on trials that are too short for any frame.
            self._by_profiles.setdefault(profiles, _Tally()).add(place, found)
        return True

    def _conclude_frames(self) -> None:
        if self._by_profiles:
            self.profiles = max(self._by_profiles, key=lambda profiles: self._by_profiles[profiles].n_rows)
        for profiles, tally in self._by_profiles.items():
            if self._frames is not None and self._frames not in profiles:
                problem, expected = f"the frames are not those of profile {self._frames}", str(self._frames)
            elif self._frames is None and profiles != self.profiles:
                problem = "the frames are of another profile than those of the other trials"
                expected = " or ".join(self.profiles)
            else:
                continue
            for place, found in tally.examples:
                self._violate(
                    "frames",
                    problem,
                    **place,
                    found=f"{found}, which is {' or '.join(profiles)}",
                    expected=expected,
                    remedy="use one profile for all trials",
                )
            if tally.n_rows > len(tally.examples):
                self._violate("frames", f"{problem}, in more rows", found=tally.n_rows - len(tally.examples))
        profile = " or ".join(self.profiles) or "any"
        self._findings.conclude(self._file, "frames", f"(neurons, frames) of every trial are of profile {profile}")

    def _warn_of_values(self) -> None:
        for name, values in self._ranges.items():
            session = self._expected[name].session
            n_constant = int(np.count_nonzero(values.lowest == values.highest))
            if n_constant:
                self._findings.warn(
                    f"{self._file}: session {session}: the predictions of {n_constant} of {values.lowest.size} neurons "
                    "are constant over all trials, and will score 0"
                )
            if values.n_negative:
                self._findings.warn(
                    f"{self._file}: session {session}: {count_things(values.n_negative, 'predicted value')} "
                    f"{'is' if values.n_negative == 1 else 'are'} negative; "
                    "recorded activity is not"
                )


def _possible_shapes(session: ExpectedSession | None, trial: int | None) -> dict[FramesProfile, tuple[int, int]]:
    if session is None or trial is None:
        return {}
    return {p: (session.neurons.size, len(frames_of(p, session.n_frames[trial]))) for p in FRAMES_PROFILES}


def _locate(prediction: Prediction, index: int) -> tuple[int, int]:
    """Return the list that one of all values is in, and its place in it."""
    if prediction.n_frames is None:
        return 0, index
    ends = np.cumsum(prediction.n_frames)
    neuron = int(np.searchsorted(ends, index, side="right"))
    return neuron, index - int(ends[neuron] - prediction.n_frames[neuron])


class _Tally:
    """How many rows are of some kind, and the first of them."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.examples: list[tuple[dict[str, Any], tuple[int, int]]] = []

    def add(self, place: Mapping[str, Any], found: tuple[int, int]) -> None:
        self.n_rows += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append((dict(place), found))


class _Range:
    """The range of each neuron's values over a file."""

    def __init__(self, n_neurons: int) -> None:
        self.lowest = np.full(n_neurons, np.inf)
        self.highest = np.full(n_neurons, -np.inf)
        self.n_negative = 0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        if values.size:
            np.minimum(self.lowest, values.min(axis=1), out=self.lowest)
            np.maximum(self.highest, values.max(axis=1), out=self.highest)
            self.n_negative += int(np.count_nonzero(values < 0))
