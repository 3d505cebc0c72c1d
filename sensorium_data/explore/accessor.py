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

from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.sessions import Stimulus, Tier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SensoriumAccessor"]

_N_NEURONS_SHOWN = 40
_N_FRAMES_SHOWN = 8
_LEAST_PEAK = 0.01


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
        dataset = self._dataset
        sizes = ", ".join(f"{dataset.sizes[dim]} {dim}s" for dim in ("trial", "neuron") if dim in dataset.sizes)
        kind = "simulated session" if dataset.attrs.get("simulated", False) else "session"
        return f"<{kind} {dataset.attrs.get('alias', '')}: {sizes}>"

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
        """Plot a trial: frames of its video, the responses of some neurons, behavior and pupil.

        Parameters
        ----------
        trial : int
            The trial's id.
        neurons : sequence of int, optional
            Unit ids; by default the 40 neurons that respond most strongly in this trial.
        """
        import matplotlib.pyplot as plt

        block = self.trial_block(trial)
        self._require_frames(block)
        if neurons is None:
            responses = block.responses.compute()
            order = np.argsort(-np.nan_to_num(responses.values).max(axis=1), kind="stable")[:_N_NEURONS_SHOWN]
            responses = responses.isel(neuron=np.sort(order))
        else:
            responses = block.responses.isel(neuron=[self._position("neuron", unit) for unit in neurons]).compute()
        figure = plt.figure(figsize=(10, 7), layout="constrained")
        grid = figure.add_gridspec(4, _N_FRAMES_SHOWN, height_ratios=(1, 3, 1, 1))
        self._draw_frames([figure.add_subplot(grid[0, column]) for column in range(_N_FRAMES_SHOWN)], block)
        seconds = block.time.values
        axes = figure.add_subplot(grid[1, :])
        if bool(block.responses_withheld):
            axes.text(0.5, 0.5, "responses withheld", ha="center", va="center", transform=axes.transAxes)
        else:
            # A trace rises by at most one row, so that rows can be told apart; one that never rises is not blown up to
            # show the deconvolution's numerical floor.
            peaks = responses.values.max(axis=1, keepdims=True)
            peaks = np.maximum(peaks, max(_LEAST_PEAK * float(peaks.max()), float(np.finfo(np.float32).tiny)))
            rows = np.arange(responses.sizes["neuron"])
            axes.plot(seconds, (responses.values / peaks + rows[:, np.newaxis]).T, linewidth=0.7, color="black")
        axes.set(ylabel=count_things(responses.sizes["neuron"], "neuron"), yticks=[], xlim=(seconds[0], seconds[-1]))
        title = f"trial {trial}: {block.tier.item()}, {block.stimulus.item()}, movie {block.movie.item()}"
        if "presentation" in block.coords and block.presentation >= 0:
            title += f", presentation {block.presentation.item()}"
        axes.set_title(title)
        for row, (variable, dim) in enumerate((("behavior", "behavior_channel"), ("pupil_center", "eye_axis"))):
            below = figure.add_subplot(grid[2 + row, :], sharex=axes)
            below.set_ylabel(variable.replace("_", " "))
            if variable not in block:
                below.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=below.transAxes)
                continue
            for channel in block[dim].values:
                values = block[variable].sel({dim: channel})
                below.plot(seconds, values, label=str(channel).replace("_", " "))
            below.legend(loc="upper right", fontsize="small")
        below.set_xlabel("time from stimulus onset (s)")
        return figure

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
        """
        import matplotlib.pyplot as plt

        traces = self.repeats(movie).sensorium.traces(neuron).compute()
        axes: Axes = plt.subplots(figsize=(9, 3), layout="constrained")[1] if ax is None else ax
        present = traces.isel(trial=np.flatnonzero(~traces.responses_withheld.values))
        if present.sizes["trial"] == 0:
            axes.text(0.5, 0.5, "responses withheld", ha="center", va="center", transform=axes.transAxes)
        else:
            axes.plot(traces.time, present.values.T, color="0.75", linewidth=0.7)
            n_present = np.isfinite(present.values).sum(axis=0)
            average = np.nansum(present.values, axis=0) / np.maximum(n_present, 1)
            axes.plot(traces.time, np.where(n_present > 0, average, np.nan), color="black", label="average")
            axes.legend(loc="upper right", fontsize="small")
        axes.set(xlabel="time from stimulus onset (s)", ylabel="response (arbitrary units)")
        axes.set_title(f"neuron {neuron}, movie {movie}, {traces.sizes['trial']} repeats")
        return axes

    def plot_frames(self, trial: int, n_frames: int = _N_FRAMES_SHOWN) -> Figure:
        """Plot frames of a trial's video, evenly spaced over its length.

        Parameters
        ----------
        trial : int
            The trial's id.
        n_frames : int
            How many to show.
        """
        import matplotlib.pyplot as plt

        if n_frames < 1:
            raise UsageError("no frames to show", found=n_frames, expected="at least 1")
        block = self.trial_block(trial)
        self._require_frames(block)
        figure, axes = plt.subplots(1, n_frames, figsize=(1.4 * n_frames, 1.3), squeeze=False, layout="constrained")
        self._draw_frames(list(axes[0]), block)
        return figure

    def _draw_frames(self, axes: Sequence[Axes], block: xr.Dataset) -> None:
        positions = np.linspace(0, block.sizes["time"] - 1, len(axes)).round().astype(int)
        frames = block.videos.isel(time=positions).compute()
        for one, frame in zip(axes, frames, strict=True):
            one.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            one.set(xticks=[], yticks=[])
            one.set_title(f"{float(frame.time):.2f} s", fontsize="small")

    def _position(self, coordinate: str, label: int) -> int:
        labels = self._dataset[coordinate].values
        found = np.flatnonzero(labels == label)
        if len(found) == 0:
            raise UsageError(
                f"no such {coordinate}",
                session=self._dataset.attrs.get("session"),
                found=label,
                expected=f"one of {len(labels)} from {labels.min()} to {labels.max()}" if len(labels) else "none",
                remedy=f"see `dataset.{coordinate}`",
            )
        return int(found[0])

    def _require_frames(self, block: xr.Dataset) -> None:
        if block.sizes["time"] == 0:
            raise UsageError(
                "the trial has no valid frame to show",
                session=self._dataset.attrs.get("session"),
                trial=int(block.trial),
                remedy="choose one whose `valid` is true",
            )


def _as_names(names: str | Iterable[str]) -> list[str]:
    return [str(names)] if isinstance(names, str) else [str(name) for name in names]


def _parse_stimulus(name: str) -> str:
    try:
        return str(Stimulus(name))
    except ValueError:
        raise UnknownNameError.of("stimulus", name, [str(stimulus) for stimulus in Stimulus]) from None
