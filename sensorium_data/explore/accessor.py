"""The ``.sensorium`` accessor of session datasets: selections and plots in the field's words.

Importing this module registers it.

Examples
--------
>>> import sensorium_data.explore.accessor
>>> recording = open_session("stores", "F")  # doctest: +SKIP
>>> recording.sensorium.select(tier="oracle").sensorium.plot_repeats("29515-10-12:17", neuron=4)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.lookup import find_position
from sensorium_data.explore.overview import describe_html, describe_text
from sensorium_data.sessions import Stimulus, Tier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sensorium_data.explore.plots.animation import TrialAnimation

__all__ = ["SensoriumAccessor"]

_N_FRAMES_SHOWN, _MOST_FRAMES_SHOWN = 8, 100


@xr.register_dataset_accessor("sensorium")  # type: ignore[no-untyped-call]  # xarray leaves it untyped
class SensoriumAccessor:
    """Selections and plots of one session, as ``dataset.sensorium``.

    Parameters
    ----------
    dataset : xarray.Dataset
        What :func:`sensorium_data.store.open_session` returns, or a selection of it that keeps the trials.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return describe_text(self._dataset)

    def _repr_html_(self) -> str:
        return describe_html(self._dataset)

    def select(
        self,
        tier: str | Iterable[str] | None = None,
        stimulus: str | Iterable[str] | None = None,
        *,
        valid: bool = True,
    ) -> xr.Dataset:
        """Return the trials of some tiers and classes of stimulus.

        Parameters
        ----------
        tier, stimulus : str or iterable of str, optional
            One name or several; all by default.
        valid : bool
            Leave out the broken trials.

        Raises
        ------
        UnknownNameError
            If no tier or class has that name.
        """
        dataset = self._dataset
        chosen = dataset.valid.values.copy() if valid else np.ones(dataset.sizes["trial"], bool)
        if tier is not None:
            tiers = [str(Tier.parse(name, set(dataset.tier.values.tolist()))) for name in _as_names(tier)]
            chosen &= np.isin(dataset.tier.values, tiers)
        if stimulus is not None:
            chosen &= np.isin(dataset.stimulus.values, [_parse_stimulus(n) for n in _as_names(stimulus)])
        return dataset.isel(trial=np.flatnonzero(chosen))

    def trial_block(self, trial: int) -> xr.Dataset:
        """Return one trial, cut to its valid frames.

        Raises
        ------
        UsageError
            If there is no such trial.
        """
        block = self._dataset.isel(trial=self._position("trial", trial))
        return block.isel(time=slice(0, int(block.n_frames)))

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
        movies = self._dataset.movie.values
        groups = self._dataset.movie_group.values if "movie_group" in self._dataset.coords else movies
        chosen = np.flatnonzero(np.isin(groups, groups[(movies == movie) | (groups == movie)]))
        if len(chosen) == 0:
            raise UnknownNameError.of(
                "movie",
                movie,
                [str(name) for name in dict.fromkeys([*movies, *groups])],
                remedy="see `dataset.movie` for the movies there are",
            )
        repeats = self._dataset.isel(trial=chosen)
        return repeats.isel(time=slice(0, int(repeats.n_frames.max())))

    def traces(self, neuron: int) -> xr.DataArray:
        """Return the responses of the neuron with this unit id, (trial, time).

        Raises
        ------
        UsageError
            If no neuron has this unit id.
        """
        responses: xr.DataArray = self._dataset["responses"]
        return responses.isel(neuron=self._position("neuron", neuron))

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

        if not 1 <= n_frames <= _MOST_FRAMES_SHOWN:
            raise UsageError("no such number of frames", found=n_frames, expected=f"1 to {_MOST_FRAMES_SHOWN}")
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
            Where to draw; a new figure by default.

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
            Where to draw; a new figure by default.

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
            there.
        predictions : xarray.Dataset or xarray.DataArray, optional
            What :func:`sensorium_data.open_predictions` returns for this session. Of several repeats the mean
            prediction is drawn.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Raises
        ------
        UsageError
            If there is no such movie or neuron, or the predictions are of another session or lack the neuron or the
            movie.
        """
        from sensorium_data.explore.plots.neuron import choose_movie, draw_neuron

        chosen = choose_movie(self._dataset) if movie is None else movie
        return draw_neuron(self.repeats(chosen), chosen, neuron, predictions, ax)

    def plot_map(
        self,
        values: xr.DataArray | Sequence[float] | np.ndarray,
        *,
        label: str | None = None,
        cmap: str | None = None,
    ) -> Figure:
        """Plot a value of each neuron where the neuron lies: from above (x, y), and in depth (x, z).

        Parameters
        ----------
        values : xarray.DataArray or array
            A number for each neuron, in the order of ``dataset.neuron``; or a DataArray with the dimension and
            coordinate ``neuron``, which may lack some. Neurons without a value are drawn as rings.
        label : str, optional
            What the values are, with their unit; by default the DataArray's ``long_name`` or name, and ``units``.
        cmap : str, optional
            A colormap of matplotlib; by default one for values from zero up, or, for values of both signs, one that is
            centered on zero.

        Raises
        ------
        UsageError
            If the values do not fit the neurons, or the positions are not known.
        """
        from sensorium_data.explore.plots.cortex import draw_map

        return draw_map(self._dataset, values, label, cmap)

    def plot_receptive_field(self, fields: xr.DataArray, neuron: int) -> Figure:
        """Plot a neuron's receptive field, an image for each lag; the lag with the largest weight is framed.

        Parameters
        ----------
        fields : xarray.DataArray
            (neuron, lag, height, width), with the coordinates ``neuron`` and, in seconds, ``lag_s``.
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
            ``response`` (neuron, direction), directions in degrees; and if they are there ``preferred_direction``,
            ``orientation_selectivity`` and ``direction_selectivity`` with ``orientation_p`` and ``direction_p``.
        neuron : int
            A unit id.
        ax : matplotlib.axes.Axes, optional
            Where to draw, polar axes too; a new figure by default.

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

    def _position(self, coordinate: str, label: int) -> int:
        return find_position(self._dataset, coordinate, label)


def _as_names(names: str | Iterable[str]) -> list[str]:
    return [str(names)] if isinstance(names, str) else [str(name) for name in names]


def _parse_stimulus(name: str) -> str:
    try:
        return str(Stimulus(name))
    except ValueError:
        raise UnknownNameError.of("stimulus", name, [str(stimulus) for stimulus in Stimulus]) from None
