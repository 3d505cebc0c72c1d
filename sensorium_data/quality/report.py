"""The quality report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from sensorium_data.counting import count_things
from sensorium_data.files import OutputFile, has_own_seal, seal_end
from sensorium_data.quality.pictures import (
    CellMap,
    DepthChart,
    Histogram,
    draw_active_share,
    draw_cells,
    draw_channel,
    draw_depths,
    draw_mean_responses,
    draw_reliability,
    embed_frames,
)
from sensorium_data.quality.quality import Outcome, QualityReport, StoreQuality
from sensorium_data.quality.scan import StimulusSample
from sensorium_data.quality.summary import ChannelSummary, StimulusSummary
from sensorium_data.sessions import find_session
from sensorium_data.visible_text import show_value

__all__ = ["REPORT_FILE", "render_report", "write_report"]

_TEMPLATE = "quality.html.j2"
_MISSING = "–"
# Beside the words, so that no outcome is told by color alone.
_SYMBOLS = {Outcome.FAILED: "✕", Outcome.NOTED: "○", Outcome.PASSED: "✓"}


def _is_report(data: bytes) -> bool:
    return b"<title>Quality of " in data and has_own_seal(data) is True


#: The report as a file: what its name ends with, and what it may replace.
REPORT_FILE = OutputFile("the quality report", (".html", ".htm"), _is_report)


def write_report(path: Path, quality: StoreQuality) -> None:
    """Write the report; an earlier report that was there is replaced at once, or left as it was.

    Raises
    ------
    UsageError
        If another file is there, or the file cannot be written.
    """
    page = render_report(quality)
    with REPORT_FILE.replace(path) as partial:
        partial.write_text(seal_end(page), encoding="utf-8")


def render_report(quality: StoreQuality) -> str:
    """Return the report as HTML.

    The page holds its style and pictures, refers to nothing outside, follows light and dark mode, and is the same for
    the same store.
    """
    # Only whoever makes a report waits for these.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=show_value, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": _format_count,
        "number": _format_number,
        "pictures": embed_frames,
        "percent": _format_percent,
        "things": count_things,
        "words": lambda text: str(text).replace("_", " "),
    }
    template = (files("sensorium_data.quality") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    page: str = environment.from_string(template).render(
        quality=quality,
        sessions=[_SessionPage.of(report) for report in quality.sessions],
        table=_to_rows(quality.to_table()),
        matrix=_compare_checks(quality),
        leakage=None if quality.leakage is None else _to_rows(_with_aliases(quality.leakage)),
        totals={outcome.value: _count_outcomes(quality, outcome) for outcome in Outcome},
        symbols={outcome.value: symbol for outcome, symbol in _SYMBOLS.items()},
    )
    return page


@dataclass(frozen=True)
class _SessionPage:
    """A session's report and its pictures."""

    report: QualityReport
    checks: list[dict[str, Any]]
    reliability: Histogram | None
    mean_responses: Histogram | None
    active_share: Histogram | None
    cells: CellMap | None
    depths: DepthChart | None
    channels: list[tuple[ChannelSummary, Histogram | None]]
    stimuli: list[tuple[StimulusSummary, StimulusSample | None]]

    @classmethod
    def of(cls, report: QualityReport) -> _SessionPage:
        neurons = report.neurons
        samples = {sample.stimulus: sample for sample in report.samples}
        return cls(
            report=report,
            checks=_to_rows(report.to_table()),
            reliability=draw_reliability(neurons.reliability.to_numpy()),
            mean_responses=draw_mean_responses(neurons["mean"].to_numpy()),
            active_share=draw_active_share(neurons.active_share.to_numpy()),
            cells=draw_cells(neurons),
            depths=draw_depths(neurons),
            channels=[(channel, draw_channel(channel)) for channel in report.channels],
            stimuli=[(row, samples.get(row.stimulus)) for row in report.stimuli],
        )


def _compare_checks(quality: StoreQuality) -> list[dict[str, Any]]:
    """Return a row a check, with its outcome in each session; the worst rows first."""
    outcomes: dict[str, dict[str, str]] = {}
    for report in quality.sessions:
        for check in report.checks:
            outcomes.setdefault(check.check, {})[report.session] = check.outcome.value
    worst = {
        check: next(outcome.value for outcome in Outcome if outcome.value in found.values())
        for check, found in outcomes.items()
    }
    return [
        {"check": check, "worst": outcome.value, "outcomes": outcomes[check]}
        for outcome in Outcome
        for check in outcomes
        if worst[check] == outcome.value
    ]


def _with_aliases(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with sessions by their aliases: full names do not fit beside each other on a page."""
    names = [name for name in table.columns if str(name).endswith("_session")]
    return table.assign(**{name: [find_session(session).alias for session in table[name]] for name in names})


def _to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict(orient="records")]


def _count_outcomes(quality: StoreQuality, outcome: Outcome) -> int:
    return sum(len(report.checks_with(outcome)) for report in quality.sessions)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _format_count(value: Any) -> str:
    return _MISSING if _is_missing(value) else f"{int(value):,}"


def _format_number(value: Any, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits, and a minus sign for a minus."""
    if _is_missing(value):
        return _MISSING
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−") if text.startswith("-") else text


def _format_percent(value: Any) -> str:
    return _MISSING if _is_missing(value) else f"{100 * value:.3g} %"
