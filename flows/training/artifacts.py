"""A training run as artifacts: its epochs and curves while it goes on, its summary at the end."""

from __future__ import annotations

import base64
import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.reporting import LiveArtifact, publish_markdown, read_summary
from models.runs import EpochMetrics, load_run
from models.training import TrainingReport, draw_curves
from sensorium_data.markdown import quote_code
from sensorium_data.sessions import find_session

__all__ = ["TrainingArtifacts", "publish_summary"]

# A page with a larger picture in it would be slow to open, and fill the server's database.
_LARGEST_PICTURE_BYTES = 300_000
_CURVES_EVERY_S = 30.0
# How summaries show their picture, which lies beside them.
_PICTURE = re.compile(r"!\[[^\]]*\]\(curves\.png\)")


class TrainingArtifacts:
    """The table ``training-<preset>`` and the curves ``curves-<preset>`` of the present run, while it goes on.

    Parameters
    ----------
    preset : str
        Its name.
    warn : callable
        Takes a line if an artifact cannot be written.
    """

    def __init__(self, preset: str, warn: Callable[[str], None]) -> None:
        self._preset = preset
        self._table = LiveArtifact(f"training-{preset}", warn)
        self._curves = LiveArtifact(f"curves-{preset}", warn, every_s=_CURVES_EVERY_S)
        self._epochs: list[EpochMetrics] = []

    def take_epoch(self, metrics: EpochMetrics) -> None:
        """Take in an epoch, and show it unless the last one was shown a moment ago."""
        self._epochs.append(metrics)
        self._show(f"`{self._preset}`, in training", is_last=False)

    def finish(self, report: TrainingReport) -> None:
        """Show all epochs of the run, those before it was continued too."""
        if self._epochs:
            self._epochs = load_run(report.run).metrics()
            self._show(f"`{report.run}`", is_last=True)

    def _show(self, what: str, *, is_last: bool) -> None:
        if self._table.is_due or is_last:
            self._table.write_table([_to_row(epoch) for epoch in self._epochs], f"Epochs of {what}", is_last=is_last)
        # A run that was continued tells its new epochs alone, and has curves at its end.
        if self._epochs[0].epoch == 1 and (self._curves.is_due or is_last):
            self._curves.write_markdown(_draw(self._epochs, self._preset), f"Curves of {what}", is_last=is_last)


def publish_summary(report: TrainingReport, preset: str) -> None:
    """Publish a run's summary, with its curves, as ``run-<preset>``."""
    text = read_summary(report)
    curves = load_run(report.run).path / "curves.png"
    if curves.is_file():
        uri = _to_data_uri(curves)
        # A browser does not follow a link to a file from the server's page.
        shown = "Curves: " + quote_code(str(curves.resolve())) if uri is None else f"![Curves]({uri})"
        text = _PICTURE.sub(lambda _: shown, text)
    if report.status == "already done":
        text = f"Already done: a run of this configuration on this data is finished, nothing was trained.\n\n{text}"
    publish_markdown(f"run-{preset}", text, f"Run `{report.run}`: {report.status}")


def _to_row(epoch: EpochMetrics) -> dict[str, Any]:
    """Return a row of the table: numbers, with a column a session."""
    row = dataclasses.asdict(epoch)
    sessions, scores = row.pop("correlations"), row.pop("scores")
    row |= {f"correlation {find_session(name).alias}": value for name, value in sessions.items()}
    row |= scores
    return row


def _draw(epochs: list[EpochMetrics], title: str) -> str:
    """Return curves in Markdown."""
    best = max((position for position, epoch in enumerate(epochs, start=1) if epoch.improved), default=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        draw_curves(epochs, path, title=title, best_epoch=best)
        picture = _to_data_uri(path)
    return f"![Losses, correlations and learning rate over the epochs]({picture})" if picture else "Too large to show."


def _to_data_uri(picture: Path) -> str | None:
    """Return a picture as a URI that holds it, unless it is too large."""
    content = picture.read_bytes()
    if len(content) > _LARGEST_PICTURE_BYTES:
        return None
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
