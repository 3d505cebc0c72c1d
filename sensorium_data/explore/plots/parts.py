"""What several pictures share: figures, titles, labels with units, and the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.explore.lookup import require_variable
from sensorium_data.picture_style import plain_text, say_instead
from sensorium_data.schema import VARIABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CHANNEL_LABELS",
    "PUPIL_LABEL",
    "RESPONSE_LABEL",
    "TIME_LABEL",
    "draw_channels",
    "draw_frames",
    "finite_mean",
    "has_neighbors",
    "make_axes",
    "make_figure",
    "name_session",
    "name_trial",
    "select_channel",
]

TIME_LABEL = "time from stimulus onset (s)"
RESPONSE_LABEL = f"response ({VARIABLES['responses'].units})"

#: What each behavioral channel is called on an axis. No unit is published of either: arbitrary units.
CHANNEL_LABELS = {
    "running_speed": "running\nspeed (a.u.)",
    "pupil_dilation": "pupil\ndilation (a.u.)",
}
PUPIL_LABEL = "pupil center\n(pixels)"


def make_figure(width: float, height: float) -> Figure:
    """Return a new figure that notebooks show by themselves; sizes in inches."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def make_axes(ax: object, width: float, height: float) -> Axes:
    """Return the axes given, or those of a new figure; a :class:`UsageError` if it is no axes."""
    from matplotlib.axes import Axes

    if ax is None:
        return make_figure(width, height).add_subplot()
    if not isinstance(ax, Axes):
        several = isinstance(ax, np.ndarray)
        size = ax.size if isinstance(ax, np.ndarray) else 1
        raise UsageError(
            "ax is no axes of matplotlib",
            found=f"an array of {count_things(size, 'axes', 'axes')}" if several else type(ax).__name__,
            expected="one matplotlib.axes.Axes",
            remedy="choose one, as `axes[0, 0]`" if several else "make one: `figure.add_subplot()`",
        )
    return ax


def has_neighbors(ax: Axes | None) -> bool:
    """Return whether given axes share their figure with others, so that titles and labels have little room."""
    return ax is not None and len(ax.figure.axes) > 1


def name_session(dataset: xr.Dataset | xr.DataArray) -> str:
    """Return the session for a title, and that it is simulated where it says so; empty where nothing is known."""
    alias = dataset.attrs.get("alias") or dataset.attrs.get("session") or ""
    simulated = "simulated " if bool(dataset.attrs.get("simulated", False)) else ""
    return plain_text(f"{simulated}session {alias}" if alias else f"{simulated.strip()}")


def name_trial(block: xr.Dataset, *, short: bool = False) -> str:
    """Return a trial's id and what is known of it, for a title; a short one has the session and the id alone."""
    parts = [name_session(block), f"trial {block.trial.item()}"]
    if short:
        return ", ".join(part for part in parts if part)
    parts += [plain_text(block[name].item()) for name in ("tier", "stimulus") if name in block.coords]
    if "movie" in block.coords:
        parts.append(f"movie {plain_text(block.movie.item())}")
    if "presentation" in block.coords and block.presentation >= 0:
        parts.append(f"presentation {block.presentation.item()}")
    return ", ".join(part for part in parts if part)


def draw_frames(axes: Sequence[Axes], block: xr.Dataset) -> None:
    """Draw frames of a trial's video, evenly spaced over its length, one into each axes."""
    videos = require_variable(block, "videos")
    positions = np.linspace(0, block.sizes["time"] - 1, len(axes)).round().astype(int)
    frames = videos.isel(time=positions).compute()
    for one, frame in zip(axes, frames, strict=True):
        one.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest", origin="upper", aspect="equal")
        one.set(xticks=[], yticks=[])
        one.set_title(f"{float(frame.time):.2f} s", fontsize="small")


def draw_channels(rows: Sequence[Axes], block: xr.Dataset) -> None:
    """Draw running speed, pupil dilation and the pupil's position over time into three axes."""
    from sensorium_data.picture_style import BLUE, ORANGE

    seconds = block.time.values
    for axes, channel in zip(rows, CHANNEL_LABELS, strict=False):
        axes.set_ylabel(CHANNEL_LABELS[channel])
        values = select_channel(block, channel)
        if values is None:
            say_instead(axes, "not recorded")
        else:
            axes.plot(seconds, values.compute(), color="black")
    axes = rows[len(CHANNEL_LABELS)]
    axes.set_ylabel(PUPIL_LABEL)
    if "pupil_center" not in block or not np.isfinite(centers := block.pupil_center.compute()).any():
        say_instead(axes, "not recorded")
        return
    for axis, color, dashes in zip(("x", "y"), (BLUE, ORANGE), ("-", "--"), strict=True):
        axes.plot(seconds, centers.sel(eye_axis=axis), color=color, linestyle=dashes, label=axis)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.5)


def select_channel(dataset: xr.Dataset, channel: str) -> xr.DataArray | None:
    """Return a behavioral channel; None where it was not recorded."""
    if "behavior" not in dataset or channel not in dataset.behavior_channel.values:
        return None
    values: xr.DataArray = dataset.behavior.sel(behavior_channel=channel)
    # Behavior is small: it is a chunk for the whole session.
    return values if bool(np.isfinite(values).any()) else None


def finite_mean(values: Any, axis: int = 0) -> np.ndarray:
    """Return the mean over what is finite, NaN where nothing is."""
    array = np.asarray(values, np.float64)
    is_finite = np.isfinite(array)
    n_finite = is_finite.sum(axis=axis)
    total = np.where(is_finite, array, 0.0).sum(axis=axis)
    return np.where(n_finite > 0, total / np.maximum(n_finite, 1), np.nan)
