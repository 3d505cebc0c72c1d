"""A whole session on its time line: what was shown when, and what the mouse and its neurons did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.explore.layout import arrange_session
from sensorium_data.explore.plots.parts import (
    CHANNEL_LABELS,
    PUPIL_LABEL,
    finite_mean,
    make_figure,
    name_session,
    select_channel,
)
from sensorium_data.picture_style import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    VERMILLION,
    YELLOW,
    picture_style,
    plain_text,
    say_instead,
)
from sensorium_data.schema import PRESENTATION_RATE_HZ
from sensorium_data.sessions import Stimulus, rank_tier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_behavior", "draw_session"]

# Of more neurons the first are averaged: they lie in one chunk of each trial.
_MOST_NEURONS = 1024
_S_PER_MINUTE = 60.0
# The two classes of a final bonus tier, which stand in one row, differ in grayscale too.
_STIMULUS_COLORS: Mapping[str, str] = MappingProxyType(
    {
        Stimulus.NATURAL_VIDEO: BLUE,
        Stimulus.GABOR: ORANGE,
        Stimulus.GAUSSIAN_DOT: GREEN,
        Stimulus.RANDOM_DOTS: "black",
        Stimulus.PINK_NOISE: YELLOW,
        Stimulus.NATURAL_IMAGES: VERMILLION,
    }
)


@dataclass(frozen=True)
class _TimeLine:
    """Where the trials of a session are drawn.

    Attributes
    ----------
    dataset : xarray.Dataset
        The trials that have a place, in the order of their places.
    begin, length : np.ndarray
        Of each trial: in minutes since the session's start, in clips where the times of some are not known, or in
        trials where no place is known.
    label : str
        Of the axis.
    n_left_out : int
        Trials without a place.
    """

    dataset: xr.Dataset
    begin: np.ndarray
    length: np.ndarray
    label: str
    n_left_out: int

    @classmethod
    def of(cls, dataset: xr.Dataset) -> _TimeLine:
        dataset = arrange_session(
            dataset, "trial", "tier", "stimulus", "movie", "n_frames", "valid", "responses_withheld"
        )
        n_trials = dataset.sizes.get("trial", 0)
        if n_trials == 0:
            raise UsageError("no trial to show", session=dataset.attrs.get("session"), remedy="select other trials")
        onset = dataset.onset.values if "onset" in dataset.coords else np.full(n_trials, np.nan)
        place = dataset.presentation.values if "presentation" in dataset.coords else np.full(n_trials, -1)
        n_timed, n_placed = int(np.isfinite(onset).sum()), int((place >= 0).sum())
        if n_timed and n_timed >= n_placed:
            shown = np.argsort(onset, kind="stable")[:n_timed]
            length = dataset.n_frames.values[shown] / PRESENTATION_RATE_HZ / _S_PER_MINUTE
            label = "time since the session's start (min)"
            return cls(dataset.isel(trial=shown), onset[shown] / _S_PER_MINUTE, length, label, n_trials - n_timed)
        if n_placed:
            shown = np.argsort(place, kind="stable")[n_trials - n_placed :]
            label = "place in the session, in clips (their times are not all known)"
            return cls(
                dataset.isel(trial=shown), place[shown].astype(float), np.ones(n_placed), label, n_trials - n_placed
            )
        label = "trial, in the order of the ids (when each was shown is not known)"
        return cls(dataset, np.arange(n_trials, dtype=float), np.ones(n_trials), label, 0)

    @property
    def middle(self) -> np.ndarray:
        """The middle of each trial."""
        return self.begin + self.length / 2

    def title(self) -> str:
        parts = [name_session(self.dataset), count_things(self.dataset.sizes["trial"], "trial")]
        if self.n_left_out:
            parts.append(f"{self.n_left_out:,} more left out, when they were shown is not known")
        return ", ".join(part for part in parts if part)


def draw_session(dataset: xr.Dataset) -> Figure:
    """Draw a session's time line; see :meth:`SensoriumAccessor.plot_session`."""
    line = _TimeLine.of(dataset)
    tiers = sorted(set(map(str, line.dataset.tier.values)), key=rank_tier)
    with picture_style():
        heights = (0.25 * max(len(tiers), 2) + 0.2, 1.3, 1.1, 1.0, 1.0)
        figure = make_figure(9, sum(heights) + 1.9)
        trials, repeats, responses, *channels = figure.subplots(
            len(heights), 1, sharex=True, height_ratios=heights
        ).tolist()
        _draw_trials(trials, line, tiers)
        _draw_repeats(repeats, line)
        _draw_responses(responses, line)
        _draw_channels(channels, line)
        channels[-1].set_xlabel(line.label)
        figure.suptitle(line.title(), wrap=True)
        figure.align_ylabels()
    return figure


def draw_behavior(dataset: xr.Dataset) -> Figure:
    """Draw the mean of each trial's running, pupil dilation and pupil position over the session."""
    line = _TimeLine.of(dataset)
    with picture_style():
        figure = make_figure(8, 4)
        rows = figure.subplots(3, 1, sharex=True).tolist()
        _draw_channels(rows[:2], line)
        _draw_pupil(rows[2], line)
        rows[-1].set_xlabel(line.label)
        figure.suptitle(f"{line.title()}: means of trials")
        figure.align_ylabels()
    return figure


def _draw_trials(axes: Axes, line: _TimeLine, tiers: list[str]) -> None:
    """Draw a row for each tier, in it a bar for each trial in the color of its stimulus."""
    dataset = line.dataset
    stimuli = list(dict.fromkeys(dataset.stimulus.values.tolist()))
    valid = dataset.valid.values
    for stimulus in stimuli:
        label = plain_text(stimulus)
        for row, tier in enumerate(tiers):
            chosen = valid & (dataset.stimulus.values == stimulus) & (dataset.tier.values == tier)
            if not chosen.any():
                continue
            bars = list(zip(line.begin[chosen], line.length[chosen], strict=True))
            color = _STIMULUS_COLORS.get(stimulus, GRAY)
            axes.broken_barh(bars, (row - 0.38, 0.76), facecolors=color, label=label, linewidth=0)
            label = "_"
    if not valid.all():
        rows = [tiers.index(tier) for tier in dataset.tier.values[~valid]]
        axes.plot(line.begin[~valid], rows, "x", color="black", label="broken")
    axes.set_yticks(range(len(tiers)), [plain_text(tier) for tier in tiers])
    axes.set_ylim(len(tiers) - 0.5, -0.5)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0, title="stimulus")


def _draw_repeats(axes: Axes, line: _TimeLine) -> None:
    """Draw a row for each movie that is shown more than once, with a mark at each showing."""
    dataset = line.dataset
    movies = (dataset.movie_group if "movie_group" in dataset.coords else dataset.movie).values
    _, place, counts = np.unique(movies, return_inverse=True, return_counts=True)
    valid = dataset.valid.values
    repeated = np.flatnonzero(counts > 1)
    # By first showing, so that the rows read from the upper left.
    first = {index: line.begin[(place == index) & valid].min(initial=np.inf) for index in repeated}
    repeated = np.array(sorted(repeated, key=lambda index: first[index]), int)
    axes.set_ylabel(f"repeated\nmovies ({len(repeated):,})")
    axes.set_yticks([])
    if len(repeated) == 0:
        say_instead(axes, "no movie is shown more than once")
        return
    rank = {int(index): row for row, index in enumerate(repeated)}
    chosen = np.array([valid[i] and int(index) in rank for i, index in enumerate(place)])
    rows = [rank[int(index)] for index in place[chosen]]
    axes.plot(line.middle[chosen], rows, linestyle="", marker="|", color="black", markersize=5)
    axes.set_ylim(len(repeated) - 0.5, -0.5)


def _draw_responses(axes: Axes, line: _TimeLine) -> None:
    """Draw the mean response over neurons and time of each trial."""
    dataset = line.dataset
    n_neurons = min(dataset.sizes.get("neuron", 0), _MOST_NEURONS)
    shown = np.flatnonzero(dataset.valid.values & ~dataset.responses_withheld.values)
    if n_neurons < dataset.sizes.get("neuron", 0):
        axes.set_title(f"mean response of the first {n_neurons:,} neurons", loc="left", fontsize=8)
    axes.set_ylabel("mean response\n(a.u.)")
    if "responses" not in dataset or n_neurons == 0 or len(shown) == 0:
        withheld = "responses withheld" if "responses" in dataset else "no responses in this selection"
        say_instead(axes, withheld if n_neurons else "no neuron")
        return
    responses = dataset.responses.isel(neuron=slice(0, n_neurons), trial=shown)
    _draw_means(axes, line.middle[shown], responses.mean(("neuron", "time"), skipna=True).compute().values)


def _draw_channels(rows: list[Axes], line: _TimeLine) -> None:
    for axes, channel in zip(rows, CHANNEL_LABELS, strict=True):
        values = select_channel(line.dataset, channel)
        axes.set_ylabel(CHANNEL_LABELS[channel])
        if values is None:
            say_instead(axes, "not recorded")
        else:
            _draw_means(axes, line.middle, finite_mean(values.transpose("trial", "time").values, axis=1))


def _draw_pupil(axes: Axes, line: _TimeLine) -> None:
    axes.set_ylabel(PUPIL_LABEL)
    if "pupil_center" not in line.dataset:
        say_instead(axes, "not recorded")
        return
    centers = line.dataset.pupil_center.transpose("trial", "eye_axis", "time").compute()
    if not np.isfinite(centers).any():
        say_instead(axes, "not recorded")
        return
    for axis, color, marker in zip(("x", "y"), (BLUE, ORANGE), ("o", "s"), strict=True):
        means = finite_mean(centers.sel(eye_axis=axis).values, axis=1)
        axes.plot(line.middle, means, color=color, marker=marker, markersize=2.5, linewidth=0.6, label=axis)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_means(axes: Axes, place: np.ndarray, means: np.ndarray) -> None:
    axes.plot(place, means, color="black", marker="o", markersize=2, linewidth=0.6)
