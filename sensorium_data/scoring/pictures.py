"""One picture of a score: the distribution over neurons, where on the cortex they lie, and a few traces."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.files import OutputFile, digest_bytes
from sensorium_data.picture_style import BLUE, GRAY, ORANGE
from sensorium_data.schema import FRAME_RATE_HZ
from sensorium_data.scoring.table import ALL_STIMULI, ScoreTable
from sensorium_data.scoring.trials import ScoredSession
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import Store, StoreLike, open_store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

__all__ = ["PICTURE_FILE", "choose_tier", "draw_scores"]

#: The picture as a file: what its name ends with, and what it may replace.
PICTURE_FILE = OutputFile("the picture of scores", (".png",), lambda data: _is_picture(data))
# The keyword of a text in the picture, and the size of a PNG's last chunk.
_TITLE = "Scores by sensorium-pipeline"
_PNG_END_SIZE_BYTES = 12

_SCORE = "single_trial_correlation"

#: Of a session's neurons, those at these places when sorted by their score have their traces drawn.
_TRACE_PERCENTILES = (99, 90, 50)

# How many neurons the color bar names: no cell of the plot holds more than a recording has.
_WHOLE_TICKS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))

# In the order in which a reader would want them.
_TIERS_BY_INTEREST = (
    Tier.FINAL_TEST_MAIN,
    Tier.LIVE_TEST_MAIN,
    Tier.ORACLE,
    Tier.FINAL_TEST_BONUS,
    Tier.LIVE_TEST_BONUS,
    Tier.TRAIN,
)
_MAPS_IN_A_ROW = 5
_ROW_HEIGHT, _WIDTH = 2.9, 13.0


def choose_tier(table: ScoreTable) -> Tier:
    """Return the tier that a picture shows: the most telling of those that the most sessions have scores of.

    Raises
    ------
    UsageError
        If nothing was scored.
    """
    table.require_scores()
    n_sessions = {
        tier: sum(key[1:] == (tier, ALL_STIMULI) for key in table.neuron_scores)
        for tier in (*_TIERS_BY_INTEREST, *(Tier(key[1]) for key in table.neuron_scores))
    }
    most = max(n_sessions.values())
    return next(tier for tier in _TIERS_BY_INTEREST if n_sessions[tier] == most)


def draw_scores(
    table: ScoreTable, store: StoreLike, path: str | Path, *, truth: str | None = None, tier: str | None = None
) -> None:
    """Draw one tier of a score table into a PNG file, which appears whole or not at all.

    The title names the tier, and the sessions that are simulated.

    Above, each session's single-trial correlations over neurons, with the mean and the mean oracle correlation, and
    against each neuron's oracle correlation. In the middle each session's cells from above, colored by their score.
    Below the responses and predictions of one trial, for three neurons of the best session.

    Parameters
    ----------
    table : ScoreTable
        What to draw.
    store : Store or path
        The session stores that were scored; one trial is read again.
    path : str or Path
        The file to write.
    truth : str, optional
        Truth of simulated sessions, if they were scored with it.
    tier : str, optional
        The tier to draw; by default :func:`choose_tier`'s.

    Raises
    ------
    UsageError
        If nothing, or not this tier, was scored, or the file cannot be written.
    """
    # A figure of its own canvas: pyplot would keep it alive and choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = choose_tier(table) if tier is None else Tier.parse(tier, {key[1] for key in table.neuron_scores})
    scores = {
        session: frame
        for (session, one, stimulus), frame in table.neuron_scores.items()
        if (one, stimulus) == (chosen, ALL_STIMULI)
    }
    if not scores:
        raise UsageError(
            "not scored", found=str(chosen), expected=", ".join(sorted({key[1] for key in table.neuron_scores}))
        )
    n_map_rows = -(-len(scores) // _MAPS_IN_A_ROW)
    heights = [_ROW_HEIGHT, (_ROW_HEIGHT - 0.1) * n_map_rows, _ROW_HEIGHT + 0.4]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    title = f"{Path(table.predictions).name}: tier {chosen}, frames {table.frames}"
    simulated = table.describe_simulated()
    figure.suptitle(f"{title}\n{simulated}" if simulated else title, fontweight="bold")
    rows = figure.subfigures(3, 1, height_ratios=heights, squeeze=False)
    above, middle, below = rows[:, 0].tolist()
    left, right = above.subplots(1, 2, width_ratios=(3, 2))
    _draw_distributions(left, scores)
    _draw_against_oracle(right, scores)
    _draw_maps(middle, scores)
    best = max(scores, key=lambda session: scores[session][_SCORE].mean())
    _draw_traces(below, table, open_store(store), truth, chosen, best)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    with PICTURE_FILE.replace(Path(path)) as partial:
        partial.write_bytes(_seal_picture(picture.getvalue()))


def _seal_picture(data: bytes) -> bytes:
    """Return a PNG with a last text before its end that holds the digest of what stands above."""
    body, end = data[:-_PNG_END_SIZE_BYTES], data[-_PNG_END_SIZE_BYTES:]
    text = b"tEXt" + f"{_TITLE}\0{digest_bytes(body)}".encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return body + chunk + end


def _is_picture(data: bytes) -> bool:
    size_bytes = len(_seal_picture(data)) - len(data)
    unsealed = data[: -_PNG_END_SIZE_BYTES - size_bytes] + data[-_PNG_END_SIZE_BYTES:]
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data == _seal_picture(unsealed)


def _draw_distributions(axes: Axes, scores: dict[str, pd.DataFrame]) -> None:
    """Draw a violin for each session, with its mean and the mean of its ceiling."""
    positions = np.arange(len(scores))
    values = [frame[_SCORE].to_numpy() for frame in scores.values()]
    # A density cannot be estimated from neurons that all score the same.
    drawn = [position for position, one in zip(positions, values, strict=True) if len(one) > 1 and np.ptp(one) > 0]
    if drawn:
        bodies = axes.violinplot([values[i] for i in drawn], drawn, widths=0.85, showextrema=False)["bodies"]
        for body in bodies:  # type: ignore[attr-defined]
            body.set(facecolor=BLUE, alpha=0.35, edgecolor=BLUE)
    means = [float(one.mean()) for one in values]
    axes.scatter(positions, means, color=BLUE, s=28, zorder=3, label="mean over neurons")
    for position, mean in zip(positions, means, strict=True):
        # On white: the line at zero would strike it through.
        axes.annotate(
            f"{mean:z.3f}",
            (position, mean),
            (20, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1},
        )
    oracle = [float(frame["oracle_correlation"].mean()) for frame in scores.values()]
    if np.isfinite(oracle).any():
        axes.scatter(
            positions, oracle, color=ORANGE, marker="_", s=320, lw=2, zorder=3, label="mean oracle correlation"
        )
    axes.axhline(0, color=GRAY, lw=0.6)
    axes.set_xticks(positions, [find_session(session).alias for session in scores])
    axes.set(xlim=(-0.6, len(scores) - 0.4), xlabel="session", ylabel="single-trial correlation")
    axes.set_title("Distribution over neurons", fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    # Room for the legend.
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_against_oracle(axes: Axes, scores: dict[str, pd.DataFrame]) -> None:
    """Draw how many neurons have which score at which oracle correlation."""
    from matplotlib.colors import LogNorm

    oracle = np.concatenate([frame["oracle_correlation"].to_numpy() for frame in scores.values()])
    score = np.concatenate([frame[_SCORE].to_numpy() for frame in scores.values()])
    axes.set_title("Against each neuron's oracle correlation", fontsize="medium")
    axes.set(xlabel="oracle correlation", ylabel="single-trial correlation")
    axes.spines[["top", "right"]].set_visible(False)
    known = np.isfinite(oracle)
    if not known.any():
        axes.text(0.5, 0.5, "no movie was shown twice", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    cells = axes.hexbin(oracle[known], score[known], gridsize=45, mincnt=1, cmap="Blues", linewidths=0.1)
    counts = cells.get_array()
    most = 2 if counts is None else max(2, int(counts.max()))
    # From below one neuron up, so that a single one is not white.
    cells.set_norm(LogNorm(vmin=0.3, vmax=most))
    low = float(min(oracle[known].min(), score[known].min()))
    high = float(max(oracle[known].max(), score[known].max()))
    axes.plot([low, high], [low, high], color=GRAY, lw=0.8, ls="--", label="equal")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    figure = axes.get_figure(root=True)
    if figure is not None:
        bar = figure.colorbar(cells, ax=axes, label="neurons", pad=0.01)
        ticks = [n for n in _WHOLE_TICKS if n <= most]
        bar.ax.set_ylim(1, most)
        bar.ax.yaxis.set_ticks(ticks, [str(n) for n in ticks])
        bar.ax.yaxis.set_ticks([], minor=True)


def _draw_maps(figure: SubFigure, scores: dict[str, pd.DataFrame]) -> None:
    """Draw each session's cells from above; one color scale for all."""
    n_rows = -(-len(scores) // _MAPS_IN_A_ROW)
    n_columns = min(len(scores), _MAPS_IN_A_ROW)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    pooled = np.concatenate([frame[_SCORE].to_numpy() for frame in scores.values()])
    high = max(float(np.percentile(pooled, 98)), 0.05)
    points = None
    for panel, (session, frame) in zip(panels, scores.items(), strict=False):
        # The best lie on top: among so many points a good neuron would be hidden.
        ordered = frame.sort_values(_SCORE)
        size = float(np.clip(16_000 / len(ordered), 2, 40))
        points = panel.scatter(
            ordered["x"], ordered["y"], c=ordered[_SCORE], s=size, cmap="viridis", vmin=0, vmax=high, linewidths=0
        )
        panel.set_aspect("equal", adjustable="datalim")
        panel.set_title(f"{find_session(session).alias}: {count_things(len(ordered), 'neuron')}", fontsize="small")
        panel.tick_params(labelsize="x-small")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(scores) :]:
        panel.set_visible(False)
    panels[0].set_xlabel("x (µm)", fontsize="small")
    panels[0].set_ylabel("y (µm)", fontsize="small")
    if points is not None:
        figure.colorbar(points, ax=panels.tolist(), label="single-trial correlation", pad=0.01, extend="both")


def _draw_traces(
    figure: SubFigure, table: ScoreTable, store: Store, truth: str | None, tier: Tier, session: str
) -> None:
    """Draw responses and predictions of a few neurons in the session's trial of the middle id."""
    scores = table.per_neuron(session, tier)[_SCORE].to_numpy()
    order = np.argsort(scores, kind="stable")
    rows = list(dict.fromkeys(int(order[round(p / 100 * (len(order) - 1))]) for p in _TRACE_PERCENTILES))
    source = ScoredSession(table.predictions, store, truth, find_session(session), [tier], table.frames)
    trials = table.trials[session, str(tier), ALL_STIMULI]
    trial = trials[len(trials) // 2]
    signals = source.read_trial(trial)
    seconds = np.asarray(source.frames(trial)) / FRAME_RATE_HZ
    panels: list[Axes] = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0].tolist()
    for panel, row in zip(panels, rows, strict=True):
        _draw_trace(panel, seconds, signals.response[row], signals.prediction[row])
        panel.set_title(
            f"neuron {source.neurons[row]}: single-trial correlation {scores[row]:z.3f}, better than "
            f"{np.mean(scores < scores[row]):.0%} of session {find_session(session).alias}",
            fontsize="small",
            loc="left",
            pad=2,
        )
    panels[0].legend(frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.93), ncols=2)
    panels[-1].set_xlabel(f"time from stimulus onset (s), trial {trial}")
    figure.supylabel("standardized activity", fontsize="medium")


def _draw_trace(
    axes: Axes,
    seconds: npt.NDArray[np.float64],
    response: npt.NDArray[np.floating],
    prediction: npt.NDArray[np.floating],
) -> None:
    axes.fill_between(seconds, response, color="0.7", lw=0, step="mid", label="response")
    axes.plot(seconds, prediction, color=ORANGE, lw=1.3, label="prediction")
    axes.set_xlim(seconds[0], seconds[-1])
    axes.tick_params(labelsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)
