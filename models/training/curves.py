"""A run in one picture and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.runs import EpochMetrics
from sensorium_data.counting import count_things
from sensorium_data.picture_style import BLUE, GRAY, ORANGE
from sensorium_data.sessions import find_session

__all__ = ["draw_curves", "write_summary"]


#: More than the plateau schedule of any recipe has.
_MOST_RATES_NAMED = 5


def draw_curves(metrics: Sequence[EpochMetrics], path: Path, *, title: str, best_epoch: int) -> None:
    """Draw losses, correlations and the learning rate over the epochs, into a PNG file.

    Parameters
    ----------
    metrics : sequence of EpochMetrics
        At least one.
    path : Path
        The file to write.
    title : str
        What to call the run.
    best_epoch : int
        The epoch whose weights are kept; 0 if none beat the untrained model.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A figure of its own canvas: pyplot would keep it alive and choose a window system.
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, correlation_axes, rate_axes = figure.subplots(1, 3)
    epochs = [epoch.epoch for epoch in metrics]
    marker = "o" if len(metrics) < 30 else ""

    loss_axes.plot(epochs, [m.train_loss for m in metrics], color=BLUE, marker=marker, ms=3, label="training windows")
    loss_axes.plot(
        epochs, [m.validation_loss for m in metrics], color=ORANGE, marker=marker, ms=3, label="validation trials"
    )
    loss_axes.set(title="Loss", ylabel="Poisson loss per neuron and frame")
    loss_axes.legend(frameon=False)

    for session in metrics[0].correlations:
        correlation_axes.plot(
            epochs, [m.correlations[session] for m in metrics], lw=1, alpha=0.7, label=find_session(session).alias
        )
    correlation_axes.plot(epochs, [m.correlation for m in metrics], color="black", lw=2, label="all neurons")
    note = "no epoch beat the untrained model"
    if best_epoch:
        correlation_axes.axvline(best_epoch, color=GRAY, ls=":", lw=1)
        note = f"best {metrics[best_epoch - 1].correlation:z.3f} in epoch {best_epoch}"
    correlation_axes.set(title=f"Validation: {note}", ylabel="single-trial correlation")
    # Correlations rise: the lower right corner is free.
    correlation_axes.legend(frameon=False, loc="lower right", fontsize="small", ncols=2)

    rate_axes.step(epochs, [m.learning_rate for m in metrics], where="mid", color=BLUE)
    rate_axes.set(title="Learning rate", yscale="log")
    rates = sorted({epoch.learning_rate for epoch in metrics})
    # A rate that falls in a few steps is named at each; one that falls all the time would hide its own labels.
    shown = rates if len(rates) <= _MOST_RATES_NAMED else [rates[0], rates[len(rates) // 2], rates[-1]]
    rate_axes.set_yticks(shown, [f"{rate:.2g}" for rate in shown])
    rate_axes.minorticks_off()

    for axes in (loss_axes, correlation_axes, rate_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def write_summary(
    metrics: Sequence[EpochMetrics],
    path: Path,
    *,
    title: str,
    best_epoch: int,
    n_parameters: int,
    device: str,
    n_trials: int,
    notes: Sequence[str] = (),
) -> None:
    """Write a page of Markdown: what was trained, how well it did, and how fast.

    Parameters
    ----------
    metrics, path, title, best_epoch
        As in :func:`draw_curves`.
    n_parameters : int
        Of the model.
    device : str
        What it was trained on.
    n_trials : int
        Training trials of all sessions.
    notes : sequence of str
        What was odd, a sentence each.
    """
    duration_s = sum(epoch.duration_s for epoch in metrics)
    waiting = sum(epoch.data_wait_share * epoch.duration_s for epoch in metrics) / duration_s
    sessions = list(metrics[0].correlations)
    lines = [
        f"# {title}",
        "",
        f"{n_parameters:,} parameters, trained on {count_things(n_trials, 'trial')} of "
        f"{count_things(len(sessions), 'session')} on {device}: "
        f"{count_things(len(metrics), 'epoch')} in {duration_s:.0f} s, "
        f"{sum(epoch.windows_per_s for epoch in metrics) / len(metrics):.1f} windows/s, "
        f"{100 * waiting:.0f}% of the time waiting for data.",
        "",
    ]
    if best_epoch:
        best = metrics[best_epoch - 1]
        lines += [
            f"The weights are those of epoch {best_epoch}. Single-trial correlation on the validation trials, which "
            "also chose the epoch (the first frames left out, standardized responses):",
            "",
            "| Session | Correlation |",
            "| --- | --- |",
            *(f"| {find_session(name)} | {best.correlations[name]:.4f} |" for name in sessions),
            f"| all neurons | {best.correlation:.4f} |",
            "",
        ]
        if best.scores:
            lines += [
                "The same by other names, each computed in its own way (`models/training/scores.py`):",
                "",
                *(f"- `{name}` {score:.4f}" for name, score in best.scores.items()),
                "",
            ]
    else:
        lines += [
            "No epoch beat the untrained model on the validation trials: the weights are those from before training.",
            "",
        ]
    if notes:
        lines += [*(f"- {note}" for note in notes), ""]
    lines += ["![Losses, correlations and learning rate over the epochs](curves.png)", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
