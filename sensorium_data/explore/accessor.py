"""The ``.sensorium`` accessor of session datasets: selections, tables, measures and plots in the field's words.

Importing this module registers it.

Examples
--------
>>> import sensorium_data.explore.accessor
>>> recording = open_session("stores", "F")  # doctest: +SKIP
>>> recording.sensorium.select(tier="oracle").sensorium.plot_repeats("29515-10-12:17", neuron=4)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_integer, parse_names, parse_number
from sensorium_data.explore.events import average_events, find_running_onsets
from sensorium_data.explore.layout import arrange_session, cut_frames, fingerprint
from sensorium_data.explore.lookup import find_position
from sensorium_data.explore.means import average_by_state, average_by_stimulus
from sensorium_data.explore.overview import describe_html, describe_text
from sensorium_data.explore.presentation import order_by_presentation
from sensorium_data.explore.receptive_fields import map_receptive_fields
from sensorium_data.explore.repeats import NoRepeatsError, measure_reliability, measure_signal_to_noise
from sensorium_data.explore.selection import match_movies, select_neurons, select_trials
from sensorium_data.explore.standardization import standardize_responses
from sensorium_data.explore.tables import describe_trials, tabulate_neurons, tabulate_trials
from sensorium_data.explore.tuning import measure_tuning
from sensorium_data.frames import N_SKIPPED_FRAMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sensorium_data.explore.plots.animation import TrialAnimation
    from sensorium_data.store import StoreLike

__all__ = ["SensoriumAccessor"]

_N_FRAMES_SHOWN, _MOST_FRAMES_SHOWN = 8, 100


@xr.register_dataset_accessor("sensorium")  # type: ignore[no-untyped-call]  # xarray leaves it untyped
class SensoriumAccessor:
    """Selections, tables, measures and plots of one session, as ``dataset.sensorium``.

    Selections read nothing large. Tables read behavior, and measures what they need, a few trials at a time in threads;
    both return values in memory. Measures count valid trials whose responses are there.

    Parameters
    ----------
    dataset : xarray.Dataset
        What :func:`sensorium_data.store.open_session` returns, or a selection of it that keeps the trials.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        # With the fingerprint of what they were made from: a variable of the dataset may be replaced.
        self._trials: tuple[Hashable, pd.DataFrame] | None = None
        self._reliability: tuple[Hashable, xr.DataArray] | None = None

    def __repr__(self) -> str:
        return describe_text(self._dataset)

    def _repr_html_(self) -> str:
        return describe_html(self._dataset)

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial; see :func:`sensorium_data.explore.tabulate_trials`. Behavior is read once."""
        key = fingerprint(self._dataset, "behavior")
        if key is None:
            return tabulate_trials(self._dataset)
        if self._trials is None or self._trials[0] != key:
            self._trials = key, tabulate_trials(self._dataset)
        return self._trials[1].copy()

    @property
    def neurons(self) -> pd.DataFrame:
        """A row for each neuron; see :func:`sensorium_data.explore.tabulate_neurons`.

        The oracle tier is read once, for the reliability, which is NaN where there are no repeats or no responses.
        """
        reliability = None
        if "responses" in self._dataset:
            with suppress(NoRepeatsError):
                reliability = self._measure_reliability()
        return tabulate_neurons(self._dataset, reliability)

    def describe(self) -> pd.DataFrame:
        """Return the numbers of trials by tier and stimulus; see :func:`sensorium_data.explore.describe_trials`."""
        return describe_trials(self.trials)

    def select(
        self,
        tier: str | Iterable[str] | None = None,
        stimulus: str | Iterable[str] | None = None,
        movie: str | Iterable[str] | None = None,
        *,
        depth: tuple[float, float] | None = None,
        min_reliability: float | None = None,
        valid: bool = True,
    ) -> xr.Dataset:
        """Return some trials and neurons. Nothing large is read, unless by ``min_reliability``.

        Parameters
        ----------
        tier : str or iterable of str, optional
            Names of tiers, ``test`` for the four test tiers, ``all`` for all. All by default, as of the others.
        stimulus : str or iterable of str, optional
            Classes of stimulus, such as ``Gabor``.
        movie : str or iterable of str, optional
            Ids of ``movie`` or ``movie_group``.
        depth : (float, float), optional
            Least and largest ``z`` of the neurons, micrometers, both included.
        min_reliability : float, optional
            Least :meth:`reliability` of the neurons, measured before trials are selected.
        valid : bool
            Leave out the broken trials.

        Raises
        ------
        UnknownNameError
            If there is no tier, class or movie of a name.
        UsageError
            If the recording has no positions, or no repeats to measure the reliability from.
        """
        if min_reliability is not None:
            min_reliability = parse_number(min_reliability, "min_reliability")
        chosen = select_trials(self._dataset, tier=tier, stimulus=stimulus, movie=movie, valid=valid)
        reliability = None if min_reliability is None else self._measure_reliability()
        return select_neurons(chosen, depth=depth, reliability=reliability, min_reliability=min_reliability)

    def by_presentation(self) -> xr.Dataset:
        """Return the trials in the order in which they were shown, with the coordinate ``session_time`` (trial, time).

        Seconds since the session's first frame; see :func:`sensorium_data.explore.order_by_presentation`.

        Raises
        ------
        UsageError
            If the place of no trial is known.
        """
        return order_by_presentation(self._dataset)

    def trial_block(self, trial: int) -> xr.Dataset:
        """Return one trial, cut to its valid frames.

        Raises
        ------
        UsageError
            If there is no such trial.
        """
        dataset = arrange_session(self._dataset, "n_frames", "time")
        block = dataset.isel(trial=find_position(dataset, "trial", trial))
        return cut_frames(block, int(block.n_frames))

    def repeats(self, movie: str) -> xr.Dataset:
        """Return the trials that show a movie, cut to the longest of them.

        Parameters
        ----------
        movie : str
            An id of ``movie``, or of ``movie_group``, whose trials are returned where the dataset has it.

        Raises
        ------
        UnknownNameError
            If no trial shows it.
        """
        dataset = arrange_session(self._dataset, "n_frames", "time")
        (name,) = _parse_one(movie, "movie")
        repeats = dataset.isel(trial=np.flatnonzero(match_movies(dataset, name)))
        return cut_frames(repeats, int(repeats.n_frames.max()))

    def traces(self, neuron: int) -> xr.DataArray:
        """Return the responses of the neuron with this unit id, (trial, time).

        Raises
        ------
        UsageError
            If no neuron has this unit id.
        """
        responses = arrange_session(self._dataset, "responses", "neuron")["responses"]
        return responses.isel(neuron=find_position(responses, "neuron", neuron))

    def responses_standardized(
        self, normalization: str = "competition", *, store: StoreLike | None = None
    ) -> xr.DataArray:
        """Return the responses on the scale of a published model or of the competition; they are not read yet.

        Parameters
        ----------
        normalization : str
            ``competition``, or another of :data:`sensorium_data.statistics.NORMALIZATIONS`.
        store : Store or path, optional
            Where the statistics are, if the dataset does not say which store it was opened from.

        Raises
        ------
        UnknownNameError, UsageError, StoreError
            As :func:`sensorium_data.explore.standardize_responses` raises them.
        """
        return standardize_responses(self._dataset, normalization, store=store)

    def reliability(
        self, *, tier: str | Iterable[str] | None = "oracle", skip_frames: int = N_SKIPPED_FRAMES
    ) -> xr.DataArray:
        """Return each neuron's correlation of a trial with the mean of the movie's other repeats, (neuron,).

        Parameters, errors and definition: :func:`sensorium_data.explore.measure_reliability`.
        """
        skip_frames = parse_integer(skip_frames, "skip_frames", least=0)
        if isinstance(tier, str) and tier == "oracle" and skip_frames == N_SKIPPED_FRAMES:
            return self._measure_reliability().copy()
        return measure_reliability(self._dataset, tier=tier, skip_frames=skip_frames)

    def signal_to_noise(
        self, *, tier: str | Iterable[str] | None = "oracle", skip_frames: int = N_SKIPPED_FRAMES
    ) -> xr.DataArray:
        """Return each neuron's signal power over its noise power, (neuron,).

        Parameters, errors and definition: :func:`sensorium_data.explore.measure_signal_to_noise`.
        """
        return measure_signal_to_noise(self._dataset, tier=tier, skip_frames=skip_frames)

    def receptive_fields(
        self,
        neurons: Iterable[int] | None = None,
        lags: Iterable[int] = range(10),
        method: str = "spike-triggered average",
        *,
        bin_pixels: int | None = None,
        penalty: float = 1.0,
    ) -> xr.DataArray:
        """Return linear receptive fields, (neuron, lag, height, width), from all trials of the dataset.

        Parameters, errors and definition: :func:`sensorium_data.explore.map_receptive_fields`.
        """
        return map_receptive_fields(self._dataset, neurons, lags, method, bin_pixels=bin_pixels, penalty=penalty)

    def stimulus_means(self, *, skip_frames: int = 0) -> xr.DataArray:
        """Return each neuron's mean response to each class of stimulus, (neuron, stimulus).

        Parameters, errors and definition: :func:`sensorium_data.explore.average_by_stimulus`.
        """
        return average_by_stimulus(self._dataset, skip_frames=skip_frames)

    def tuning(
        self,
        stimulus: str = "Gabor",
        *,
        delay_frames: int = 0,
        skip_blocks: int = 0,
        n_permutations: int = 1000,
        seed: int = 0,
    ) -> xr.Dataset:
        """Return each neuron's tuning to the direction of drifting Gabor patches.

        Parameters, errors and definitions: :func:`sensorium_data.explore.measure_tuning`.
        """
        return measure_tuning(
            self._dataset,
            stimulus,
            delay_frames=delay_frames,
            skip_blocks=skip_blocks,
            n_permutations=n_permutations,
            seed=seed,
        )

    def running_onsets(self, *, threshold: float = 1.0, rest_frames: int = 30, run_frames: int = 15) -> pd.DataFrame:
        """Return when the mouse begins to run: trials and frames, as :meth:`event_average` takes them.

        Parameters, errors and definition: :func:`sensorium_data.explore.find_running_onsets`.
        """
        return find_running_onsets(self._dataset, threshold=threshold, rest_frames=rest_frames, run_frames=run_frames)

    def event_average(
        self, events: pd.DataFrame | Iterable[tuple[int, int]], window: tuple[int, int] = (-15, 45)
    ) -> xr.DataArray:
        """Return each neuron's mean response around events, (neuron, lag).

        Parameters, errors and definition: :func:`sensorium_data.explore.average_events`.
        """
        return average_events(self._dataset, events, window)

    def modulation(self, state: str = "running", *, threshold: float | None = None) -> xr.Dataset:
        """Return each neuron's mean response in two states of the mouse, and their index ``(a - b) / (a + b)``.

        Parameters, errors and definition: :func:`sensorium_data.explore.average_by_state`.
        """
        return average_by_state(self._dataset, state, threshold=threshold)

    def plot_trial(self, trial: int, neurons: Sequence[int] | None = None) -> Figure:
        """Plot a trial: frames of its video, the responses of some neurons, running, pupil dilation and position.

        The rows of responses share one scale, which the bar at the right gives.

        Parameters
        ----------
        trial : int
            The trial's id.
        neurons : sequence of int, optional
            Unit ids, from top to bottom, the first 200 of them; by default the 20 neurons that respond most strongly in
            this trial.

        Raises
        ------
        UsageError
            If there is no such trial or neuron, or the trial has no valid frame.
        """
        from sensorium_data.explore.plots.trial import draw_trial

        return draw_trial(self.trial_block(trial), neurons)

    def plot_frames(self, trial: int, n_frames: int = _N_FRAMES_SHOWN) -> Figure:
        """Plot frames of a trial's video, evenly spaced over its length.

        Parameters
        ----------
        trial : int
            The trial's id.
        n_frames : int
            How many to show, from 1 to 100.

        Raises
        ------
        UsageError
            If there is no such trial, it has no valid frame, or the number makes no sense.
        """
        from sensorium_data.explore.plots.trial import draw_trial_frames

        n_frames = parse_integer(n_frames, "n_frames", least=1, most=_MOST_FRAMES_SHOWN)
        return draw_trial_frames(self.trial_block(trial), n_frames)

    def plot_raster(
        self, trial: int, order: Sequence[int] | None = None, *, standardize: bool = True, ax: Axes | None = None
    ) -> Axes:
        """Plot the responses of all neurons in a trial as an image, a row for each neuron.

        Parameters
        ----------
        trial : int
            The trial's id.
        order : sequence of int, optional
            Unit ids from top to bottom; neurons that are not named are left out. By default neurons whose responses
            correlate in this trial stand next to each other.
        standardize : bool
            Divide each neuron's responses by their standard deviation in the trial, so that strong ones do not hide the
            others.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default. Make a figure of several axes with ``layout="constrained"``, so
            that labels and titles have room.

        Raises
        ------
        UsageError
            If there is no such trial or neuron, the order names one twice, or the trial has no valid frame.
        """
        from sensorium_data.explore.plots.raster import draw_raster

        return draw_raster(self.trial_block(trial), order, standardize=standardize, ax=ax)

    def plot_repeats(self, movie: str, neuron: int, ax: Axes | None = None) -> Axes:
        """Plot one neuron's responses to every repeat of a movie, and their average.

        Parameters
        ----------
        movie : str
            A movie's id, of ``movie`` or ``movie_group``.
        neuron : int
            A unit id.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default. Make a figure of several axes with ``layout="constrained"``, so
            that labels and titles have room.

        Raises
        ------
        UsageError
            If there is no such movie or neuron.
        """
        return self.plot_neuron(neuron, movie, ax=ax)

    def plot_neuron(
        self,
        neuron: int,
        movie: str | None = None,
        predictions: xr.Dataset | xr.DataArray | None = None,
        *,
        ax: Axes | None = None,
    ) -> Axes:
        """Plot one neuron's responses to every repeat of a movie, their average, and what a model predicted.

        Parameters
        ----------
        neuron : int
            A unit id.
        movie : str, optional
            A movie's id, of ``movie`` or ``movie_group``; by default the one with the most repeats whose responses are
            there, among those that are predicted if there are predictions.
        predictions : xarray.Dataset or xarray.DataArray, optional
            What :func:`sensorium_data.open_predictions` returns for this session. Of several repeats the mean
            prediction is drawn, on a scale of its own if it is in standardized units.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default. Make a figure of several axes with ``layout="constrained"``, so
            that labels and titles have room.

        Raises
        ------
        UsageError
            If there is no such movie or neuron, or the predictions are of another session or lack the neuron or the
            movie.
        """
        from sensorium_data.explore.plots.neuron import choose_movie, draw_neuron

        chosen = choose_movie(self._dataset, predictions) if movie is None else _parse_one(movie, "movie")[0]
        return draw_neuron(self.repeats(chosen), chosen, neuron, predictions, ax)

    def plot_map(
        self,
        values: xr.DataArray | pd.Series | Sequence[float] | np.ndarray,
        *,
        label: str | None = None,
        cmap: str | None = None,
        limits: tuple[float, float] | None = None,
    ) -> Figure:
        """Plot a value of each neuron where the neuron lies: from above (x, y), and in depth (x, z).

        Parameters
        ----------
        values : xarray.DataArray, pandas.Series or array
            A number for each neuron, in the order of ``dataset.neuron``; or a DataArray with the dimension and
            coordinate ``neuron``, or a Series whose index has the unit ids, which may lack some.
            Neurons without a value are drawn as crosses.
        label : str, optional
            What the values are, with their unit; by default the DataArray's ``long_name`` or name, and ``units``.
        cmap : str, optional
            A colormap of matplotlib; by default one for values from zero up, or, for values of both signs, one that is
            centered on zero.
        limits : (float, float), optional
            The values at the ends of the colors; by default the least and the largest value, or, of values of both
            signs, the largest with either sign.

        Raises
        ------
        UsageError
            If the values do not fit the neurons, the positions are not known, or the limits are no range.
        """
        from sensorium_data.explore.plots.cortex import draw_map

        return draw_map(self._dataset, values, label, cmap, limits)

    def plot_receptive_field(self, fields: xr.DataArray, neuron: int) -> Figure:
        """Plot a neuron's receptive field, an image for each lag; the lag with the largest weight is framed.

        Parameters
        ----------
        fields : xarray.DataArray
            What :meth:`receptive_fields` returns: (neuron, lag, height, width), with the coordinates ``neuron`` and, in
            seconds, ``lag_s``.
        neuron : int
            A unit id.

        Raises
        ------
        UsageError
            If the fields have other dimensions or lack the neuron.
        """
        from sensorium_data.explore.plots.receptive_field import draw_receptive_field

        return draw_receptive_field(self._dataset, fields, neuron)

    def plot_tuning(self, tuning: xr.Dataset, neuron: int, ax: Axes | None = None) -> Axes:
        """Plot a neuron's mean response to each direction of movement, and how selective it is.

        Parameters
        ----------
        tuning : xarray.Dataset
            What :meth:`tuning` returns: ``response`` (neuron, direction), directions in degrees, and how selective the
            neurons are. The preferred direction is marked if it is significant (p < 0.05), else the preferred
            axis of drift if that is.
        neuron : int
            A unit id.
        ax : matplotlib.axes.Axes, optional
            Where to draw, polar axes too; a new figure by default. Make a figure of several axes with
            ``layout="constrained"``, so that labels and titles have room.

        Raises
        ------
        UsageError
            If it is no tuning, or lacks the neuron.
        """
        from sensorium_data.explore.plots.tuning import draw_tuning

        return draw_tuning(self._dataset, tuning, neuron, ax)

    def plot_behavior(self, trial: int | None = None) -> Figure:
        """Plot running speed, pupil dilation and the pupil's position: in a trial, or the means of all trials.

        Parameters
        ----------
        trial : int, optional
            The trial's id; by default the means of all trials against the time in the session.

        Raises
        ------
        UsageError
            If there is no such trial, or it has no valid frame.
        """
        from sensorium_data.explore.plots.session import draw_behavior
        from sensorium_data.explore.plots.trial import draw_trial_behavior

        return draw_behavior(self._dataset) if trial is None else draw_trial_behavior(self.trial_block(trial))

    def plot_session(self) -> Figure:
        """Plot the session on its time line: tiers, stimuli, repeats of movies, mean response, running and pupil.

        Trials whose place in the session is not known are left out, and counted in the title. Where no place is known,
        the trials stand in the order of their ids. Reads all responses of the first 1,024 neurons.

        Raises
        ------
        UsageError
            If there is no trial.
        """
        from sensorium_data.explore.plots.session import draw_session

        return draw_session(self._dataset)

    def animate(self, trial: int) -> TrialAnimation:
        """Return a trial as a film that notebooks show: its video, and the mean response and running over time.

        Parameters
        ----------
        trial : int
            The trial's id.

        Returns
        -------
        TrialAnimation
            Its ``save(path)`` writes an ``.html``, ``.gif`` or, with ffmpeg, ``.mp4`` file.

        Raises
        ------
        UsageError
            If there is no such trial, or it has no valid frame.
        """
        from sensorium_data.explore.plots.animation import TrialAnimation

        return TrialAnimation(self.trial_block(trial))

    def _measure_reliability(self) -> xr.DataArray:
        key = fingerprint(self._dataset, "responses")
        if key is None:
            return measure_reliability(self._dataset)
        if self._reliability is None or self._reliability[0] != key:
            self._reliability = key, measure_reliability(self._dataset)
        return self._reliability[1]


def _parse_one(name: str, what: str) -> list[str]:
    names = parse_names(name, what)
    if len(names) != 1:
        raise UsageError(f"several names of a {what}", found=f"{len(names)} names", expected="one")
    return names
