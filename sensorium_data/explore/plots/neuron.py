"""One neuron's responses to the repeats of a movie, with what a model predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.explore.layout import arrange_session
from sensorium_data.explore.lookup import find_position, require_variable
from sensorium_data.explore.plots.parts import RESPONSE_LABEL, TIME_LABEL, finite_mean, make_axes, name_session
from sensorium_data.picture_style import LIGHT_GRAY, VERMILLION, picture_style, plain_text, say_instead

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["choose_movie", "draw_neuron"]


def choose_movie(dataset: xr.Dataset, predictions: object = None) -> str:
    """Return the movie with the most repeats whose responses are there; the first in the session of several.

    Of predictions that have some of the session's movies, only these movies are taken.

    Raises
    ------
    UsageError
        If the selection has no valid trial.
    """
    dataset = arrange_session(dataset, "movie", "valid", "responses_withheld")
    movies = (dataset.movie_group if "movie_group" in dataset.coords else dataset.movie).values
    valid = dataset.valid.values
    if isinstance(predictions, xr.Dataset | xr.DataArray) and "trial" in predictions.coords:
        is_predicted = np.isin(movies, movies[np.isin(dataset.trial.values, predictions.trial.values)])
        valid = valid & is_predicted if (valid & is_predicted).any() else valid
    for chosen in (valid & ~dataset.responses_withheld.values, valid):
        if chosen.any():
            names, first, counts = np.unique(movies[chosen], return_index=True, return_counts=True)
            return str(names[np.lexsort((first, -counts))[0]])
    raise UsageError(
        "no valid trial to show",
        session=dataset.attrs.get("session"),
        found=count_things(dataset.sizes["trial"], "trial"),
        remedy="select other trials",
    )


def draw_neuron(
    repeats: xr.Dataset, movie: str, neuron: int, predictions: xr.Dataset | xr.DataArray | None, ax: Axes | None
) -> Axes:
    """Draw the repeats of a movie, their average and predictions; see :meth:`SensoriumAccessor.plot_neuron`."""
    repeats = arrange_session(repeats, "responses", "responses_withheld", "time")
    position = find_position(repeats, "neuron", neuron)
    traces = require_variable(repeats, "responses").isel(neuron=position)
    present = traces.isel(trial=np.flatnonzero(~repeats.responses_withheld.values)).compute()
    predicted = None if predictions is None else _average_predictions(predictions, repeats, neuron)
    seconds = repeats.time.values
    n_present = present.sizes["trial"]
    title = [name_session(repeats), f"neuron {neuron}", f"movie {plain_text(movie)}"]
    title.append(count_things(repeats.sizes["trial"], "repeat"))
    with picture_style():
        axes = make_axes(ax, 7, 2.8)
        average = None
        drawn: list[Line2D] = []
        if n_present and not np.isfinite(present.values).any() and predicted is None:
            say_instead(axes, "no response is known")
        elif n_present:
            average = finite_mean(present.values)
            axes.plot(seconds, present.values.T, color=LIGHT_GRAY, linewidth=0.7)
            (line,) = axes.plot(seconds, average, color="black", linewidth=1.6, label=f"average of {n_present}")
            drawn.append(line)
        elif predicted is None:
            say_instead(axes, "responses withheld")
        else:
            title.append("responses withheld")
        if predicted is not None:
            n_frames = min(len(seconds), len(predicted))
            # Predictions in other units than the responses have a scale of their own.
            is_standardized = getattr(predictions, "attrs", {}).get("response_units") == "standardized"
            target = _add_scale(axes) if is_standardized else axes
            (line,) = target.plot(
                seconds[:n_frames], predicted[:n_frames], color=VERMILLION, linestyle="--", linewidth=1.6,
                label="prediction (scale at the right)" if is_standardized else "prediction",
            )  # fmt: skip
            drawn.append(line)
            if average is not None:
                title.append(_say_correlation(average[:n_frames], predicted[:n_frames]))
        if drawn:
            axes.legend(handles=drawn, loc="upper right", ncols=2)
        axes.set(xlabel=TIME_LABEL, ylabel=RESPONSE_LABEL)
        if len(seconds) > 1:
            axes.set_xlim(seconds[0], seconds[-1])
        axes.set_title(", ".join(part for part in title if part))
    return axes


def _add_scale(axes: Axes) -> Axes:
    """Return axes over the same time with a scale of their own at the right."""
    twin = axes.twinx()
    twin.spines["right"].set_visible(True)
    twin.set_ylabel("prediction\n(standard deviations)")
    return twin


def _say_correlation(average: np.ndarray, predicted: np.ndarray) -> str:
    is_known = np.isfinite(average) & np.isfinite(predicted)
    one, other = average[is_known], predicted[is_known]
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return ""
    return f"correlation {np.corrcoef(one, other)[0, 1]:z.2f}"


def _average_predictions(predictions: xr.Dataset | xr.DataArray, repeats: xr.Dataset, neuron: int) -> np.ndarray:
    """Return the mean prediction over the repeats that are predicted."""
    if not isinstance(predictions, xr.Dataset | xr.DataArray):
        raise UsageError(
            "no predictions",
            session=repeats.attrs.get("session"),
            found=repr(predictions),
            expected="opened predictions",
            remedy="open them: `sd.open_predictions(url, session)`",
        )
    session, predicted_session = repeats.attrs.get("session"), predictions.attrs.get("session")
    if session is not None and predicted_session is not None and session != predicted_session:
        raise UsageError(
            "the predictions are of another session",
            session=session,
            found=predicted_session,
            remedy="open this session's: `sd.open_predictions(url, session)`",
        )
    values = require_variable(predictions, "predictions") if isinstance(predictions, xr.Dataset) else predictions
    position = find_position(predictions, "neuron", neuron)
    common = np.flatnonzero(np.isin(values.trial.values, repeats.trial.values))
    if len(common) == 0:
        raise UsageError(
            "no repeat of this movie is predicted",
            session=session,
            found=f"predictions of {count_things(values.sizes['trial'], 'other trial')}",
            expected=f"one of the trials {', '.join(map(str, repeats.trial.values[:10]))}",
            remedy="predict this tier, or choose another movie",
        )
    return finite_mean(values.isel(neuron=position, trial=common).transpose("trial", "time").values)
