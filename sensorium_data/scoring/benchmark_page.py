"""The open benchmark as one HTML page that needs nothing beside it, with its JSON.

The template draws the charts as inline SVG in the page's own colors and letters, so that they follow light and dark
mode. Lengths are in SVG's user units, which are CSS pixels at full size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sensorium_data.counting import count_things
from sensorium_data.files import (
    LocalObjects,
    Objects,
    OutputFile,
    RemoteObjects,
    has_own_seal,
    read_sealed,
    refuse_owned_folder,
    seal_end,
    seal_text,
    write_confirmed,
)
from sensorium_data.redaction import hide_secrets
from sensorium_data.scoring.benchmark import TIERS, BenchmarkReport
from sensorium_data.scoring.table import AGGREGATIONS, ALL_STIMULI
from sensorium_data.sessions import find_session
from sensorium_data.visible_text import show_value

__all__ = ["ClassChart", "draw_classes", "render_benchmark", "require_benchmark_writable", "write_benchmark"]

_FILES = {
    "benchmark.html": OutputFile("the benchmark's page", (".html",), lambda data: _is_page(data)),
    "benchmark.json": OutputFile("the benchmark's JSON", (".json",), lambda data: _is_json(data)),
}
_TEMPLATE = "benchmark.html.j2"
_MISSING = "–"
_SCORE = "single_trial_correlation"
_AGGREGATION = "mean over neurons"

_WIDTH, _LEFT, _RIGHT, _VALUE_WIDTH = 340.0, 10.0, 10.0, 44.0
_ROW_HEIGHT, _AXIS_HEIGHT = 36.0, 22.0


@dataclass(frozen=True)
class _Dot:
    """An entry's score: where its label, its dot and its interval are; None where it is not known."""

    name: str
    y: float
    x: float
    low: float | None
    high: float | None
    value: str


@dataclass(frozen=True)
class ClassChart:
    """Every entry's score on one class of stimuli in one tier.

    Attributes
    ----------
    tier, stimulus : str
        What the trials are.
    n_sessions, n_trials : int
        Of the entry that has the most.
    width, height, base : float
        Of the picture, and of the line under the dots.
    dots : tuple
        A dot for each entry.
    ticks : tuple of (float, str)
        Labels on the axis, which all charts share.
    description : str
        The picture in words.
    """

    tier: str
    stimulus: str
    n_sessions: int
    n_trials: int
    width: float
    height: float
    base: float
    dots: tuple[_Dot, ...]
    ticks: tuple[tuple[float, str], ...]
    description: str


def write_benchmark(report: BenchmarkReport, folder: Objects) -> str:
    """Write ``benchmark.html`` and ``benchmark.json`` into a folder, each whole or not at all; return the page's path.

    Behind a URL both are compared with what has arrived.

    Raises
    ------
    UsageError
        As :func:`require_benchmark_writable` does.
    OSError, StoreError
        If the folder cannot be written.
    """
    require_benchmark_writable(folder)
    document = report.to_json().replace("{", '{\n  "digest": "",', 1)
    write_confirmed(folder, "benchmark.json", seal_text(f"{document}\n"))
    write_confirmed(folder, "benchmark.html", seal_end(render_benchmark(report)).encode())
    return folder.locate("benchmark.html")


def require_benchmark_writable(folder: Objects) -> None:
    """See that nothing but an earlier benchmark is replaced in a folder, before the work.

    Raises
    ------
    UsageError
        If another file has the name of one that is written, or no file can be made there.
    StoreError
        If what has the name cannot be read behind a URL.
    """
    if isinstance(folder, RemoteObjects):
        refuse_owned_folder(folder, "the benchmark's page")
        for name, kind in _FILES.items():
            kind.require_replaceable(folder, name)
    elif isinstance(folder, LocalObjects) and folder.root.exists():
        for name, kind in _FILES.items():
            kind.require_writable(folder.root / name)


def _is_page(data: bytes) -> bool:
    return b"<title>Open benchmark on the old mice</title>" in data and has_own_seal(data) is True


def _is_json(data: bytes) -> bool:
    try:
        document, is_sealed = read_sealed(data)
    except ValueError:
        return False
    return is_sealed and document.get("kind") == "benchmark"


def render_benchmark(report: BenchmarkReport) -> str:
    """Return the page as HTML; it refers to nothing outside, and is the same for the same report."""
    # Only whoever makes a page waits for it.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=show_value, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": _format_score,
        "count": lambda value: f"{int(value):,}",
        "words": lambda text: str(text).replace("_", " "),
        "alias": lambda name: find_session(name).alias,
        "things": count_things,
        "plain": lambda text: hide_secrets(str(text)),
    }
    template = (files("sensorium_data.scoring") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    page: str = environment.from_string(template).render(
        report=report,
        confidence=f"{report.bootstrap.confidence:.0%}",
        tiers=[table for tier in TIERS if (table := _compare_tier(report, tier))["rows"]],
        charts=draw_classes(report),
        sessions=[(entry.name, entry.table.rows.to_dict(orient="records")) for entry in report.entries],
        leaks=[(entry, leak) for entry in report.entries for leak in entry.leaks if leak.n_leaked_trials],
        aggregations=AGGREGATIONS,
    )
    return page


def draw_classes(report: BenchmarkReport) -> list[ClassChart]:
    """Return a chart for each tier and class of stimuli, by the mean over the neurons of all sessions."""
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in report.entries:
        summary = entry.table.summary
        for row in summary[summary["aggregation"] == _AGGREGATION].to_dict(orient="records"):
            named = {str(name): value for name, value in row.items()}
            groups.setdefault((named["tier"], named["stimulus"]), {})[entry.name] = named
    # A tier that is shown class by class says nothing new as a whole.
    of_classes = {tier for tier, stimulus in groups if stimulus != ALL_STIMULI}
    keys = [key for key in groups if not (key[1] == ALL_STIMULI and key[0] in of_classes)]
    keys.sort(key=lambda key: ([str(tier) for tier in TIERS].index(key[0]), key[1]))
    names = (_SCORE, f"{_SCORE}_low", f"{_SCORE}_high")
    ends = [float(row[name]) for key in keys for row in groups[key].values() for name in names]
    known = [end for end in ends if math.isfinite(end)]
    low = min(0.0, *known) if known else 0.0
    high = max(low + 0.01, *known) if known else 1.0
    return [_draw_class(*key, groups[key], low, high) for key in keys]


def _draw_class(tier: str, stimulus: str, scores: Mapping[str, dict[str, Any]], low: float, high: float) -> ClassChart:
    def place(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT - _VALUE_WIDTH)

    dots: list[_Dot] = []
    words: list[str] = []
    for name, row in scores.items():
        ends = [float(row[f"{_SCORE}_{end}"]) for end in ("low", "high")]
        whisker = [place(end) if all(map(math.isfinite, ends)) else None for end in ends]
        value = float(row[_SCORE])
        y = 26 + _ROW_HEIGHT * len(dots)
        dots.append(_Dot(name, y, place(value), whisker[0], whisker[1], _format_score(value)))
        words.append(f"{name} {value:.3f}")
    base = _ROW_HEIGHT * len(dots) + 4
    return ClassChart(
        tier=tier,
        stimulus=stimulus,
        n_sessions=max(int(row["n_sessions"]) for row in scores.values()),
        n_trials=max(int(row["n_trials"]) for row in scores.values()),
        width=_WIDTH,
        height=base + _AXIS_HEIGHT,
        base=base,
        dots=tuple(dots),
        ticks=tuple((place(tick), f"{tick:g}".replace("-", "−")) for tick in _choose_ticks(low, high)),
        description=f"Single-trial correlation on {stimulus}, {tier}: {'; '.join(words)}.",
    )


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers from low to high."""
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= rough * (1 + 1e-9))
    return [round(i * step, 6) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _compare_tier(report: BenchmarkReport, tier: str) -> dict[str, Any]:
    """Return one tier's table: a row for each entry that has a score of it, with both aggregations and its leaks."""
    rows = []
    for entry in report.entries:
        summary = entry.table.summary
        of_tier = summary[(summary["tier"] == str(tier)) & (summary["stimulus"] == ALL_STIMULI)]
        if of_tier.empty:
            continue
        by_aggregation = of_tier.set_index("aggregation").to_dict(orient="index")
        n_movies, n_trials = entry.count_leaks(str(tier))
        rows.append(
            {
                "name": entry.name,
                "neurons": by_aggregation[_AGGREGATION],
                "mice": by_aggregation["mean over mice"],
                "n_leaked_movies": n_movies,
                "n_leaked_trials": n_trials,
                "is_leak_known": not entry.unknown,
            }
        )
    return {"tier": str(tier), "rows": rows}


def _format_score(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _MISSING
    # Adding 0 makes a rounded −0 a 0.
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
