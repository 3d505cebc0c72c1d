"""Draw what a session consists of, from the schema: ``python docs/drawings/session.py`` writes ``docs/session.svg``.

All text lies on filled boxes, so that the drawing is readable on light pages and on dark ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from sensorium_data.schema import COORDINATES, MOVIE_GROUP, VARIABLES, Field

DRAWING = Path(__file__).resolve().parents[1] / "session.svg"

_WIDTH = 680
_GAP = 12
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_SANS = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_INK = "#16202a"
#: Fill and stroke of the boxes, of colors that colorblind readers tell apart (Okabe and Ito).
_COLORS = {
    "videos": ("#dcebf7", "#0072B2"),
    "responses": ("#fbe8d3", "#D55E00"),
    "behavior": ("#d8f0e6", "#009E73"),
    "pupil_center": ("#d8f0e6", "#009E73"),
}
_NEUTRAL = ("#eceff2", "#7a8793")
#: What else a reader has to know of a variable.
_REMARKS = {
    "videos": "36 × 64 pixels",
    "responses": "NaN where withheld",
    "behavior": "pupil size, running",
    "pupil_center": "x, y",
}
_ATTRIBUTES = (
    ("what it is", "title, session, alias, group, simulated"),
    ("where it comes from", "source, source_size_bytes, source_modified, source_digest"),
    ("how to cite it", "institution, license, references"),
    ("how it was made", "schema_version, converter_version, precision"),
)


def list_attributes() -> list[str]:
    """Return the attributes that the drawing names."""
    return [name for _, names in _ATTRIBUTES for name in names.split(", ")]


def draw_session() -> str:
    """Return the drawing as SVG."""
    parts: list[str] = []
    half = (_WIDTH - 3 * _GAP) / 2
    y = _GAP
    parts += _heading("Data variables", y)
    y += 28
    for row in (("videos", "responses"), ("behavior", "pupil_center")):
        for column, name in enumerate(row):
            parts += _draw_variable(VARIABLES[name], _GAP + column * (half + _GAP), y, half)
        y += 132 + _GAP
    parts += _heading("Coordinates, by dimension", y)
    y += 28
    trial, others = _list_coordinates()
    x, top = 2 * _GAP + half, y
    for dim, names in others.items():
        height = 34 + 20 * len(names)
        parts += _draw_list(dim, names, x, y, half, height)
        y += height + _GAP
    # The dimension with most coordinates, as high as all others.
    parts += _draw_list("trial", trial, _GAP, top, half, y - _GAP - top)
    parts += _heading("Attributes", y)
    y += 28
    height = 20 + 22 * len(_ATTRIBUTES)
    parts += _box(_GAP, y, _WIDTH - 2 * _GAP, height, *_NEUTRAL)
    for line, (meaning, names) in enumerate(_ATTRIBUTES):
        parts.append(_text(meaning, 2 * _GAP, y + 26 + 22 * line, size=14))
        parts.append(_text(names, 2 * _GAP + 158, y + 26 + 22 * line, size=13, family=_MONO))
    y += height + _GAP
    title = "A session: data variables, coordinates and attributes"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:g}" width="{_WIDTH}" height="{y:g}" '
            f'role="img" aria-label="{title}">',
            f"<title>{title}</title>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _list_coordinates() -> tuple[list[Field], dict[str, list[Field]]]:
    fields = [field for field in COORDINATES.values() if field.name != "statistic"]
    trial = [field for field in fields if field.dims == ("trial",)]
    movie = next(position for position, field in enumerate(trial) if field.name == "movie")
    trial.insert(movie + 1, MOVIE_GROUP)
    others: dict[str, list[Field]] = {}
    for field in fields:
        if field.dims != ("trial",):
            others.setdefault(field.dims[0], []).append(field)
    return trial, others


def _draw_variable(field: Field, x: float, y: float, width: float) -> Iterator[str]:
    fill, stroke = _COLORS[field.name]
    yield from _box(x, y, width, 132, fill, stroke)
    yield _text(field.name, x + 12, y + 26, size=17, family=_MONO, weight="bold")
    yield _text(f"({', '.join(field.dims)})", x + 12, y + 48, size=12.5, family=_MONO)
    depth, breadth, height = (26, 92, 34) if field.name in ("videos", "responses") else (26, 92, 12)
    yield from _draw_block(x + 14, y + 112, breadth, height, depth, stroke)
    yield _text(field.dtype, x + 148, y + 76, size=13, family=_MONO)
    yield _text(field.units, x + 148, y + 96, size=13)
    yield _text(_REMARKS[field.name], x + 148, y + 116, size=13)


def _draw_block(x: float, y: float, breadth: float, height: float, depth: float, color: str) -> Iterator[str]:
    """Draw an array as a block of slices, one behind the other: its trials."""
    n_slices = 4
    for number in range(n_slices - 1, -1, -1):
        shift = depth * number / (n_slices - 1)
        yield (
            f'<rect x="{x + shift:g}" y="{y - height - shift / 1.6:g}" width="{breadth}" height="{height}" rx="2" '
            f'fill="{color}" fill-opacity="{0.9 - 0.15 * number:g}" stroke="#ffffff" stroke-width="1.2"/>'
        )


def _draw_list(dim: str, fields: list[Field], x: float, y: float, width: float, height: float) -> Iterator[str]:
    yield from _box(x, y, width, height, *_NEUTRAL)
    yield _text(f"along {dim}", x + 12, y + 22, size=14, weight="bold")
    for line, field in enumerate(fields):
        name = f"* {field.name}" if field.name == dim else f"  {field.name}"
        unit = field.units if field.units not in ("", "1") else ""
        yield _text(name, x + 12, y + 44 + 20 * line, size=13, family=_MONO)
        if unit:
            yield _text(unit, x + width - 12, y + 44 + 20 * line, size=12.5, anchor="end")


def _heading(text: str, y: float) -> Iterator[str]:
    width = 26 + 8.4 * len(text)
    yield f'<rect x="{_GAP}" y="{y:g}" width="{width:g}" height="24" rx="12" fill="#3a4754"/>'
    yield _text(text, _GAP + 12, y + 17, size=14, weight="bold", ink="#ffffff")


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> Iterator[str]:
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{fill}" stroke="{stroke}" '
        'stroke-width="1.5"/>'
    )


def _text(
    text: str,
    x: float,
    y: float,
    *,
    size: float,
    family: str = _SANS,
    weight: str = "normal",
    anchor: str = "start",
    ink: str = _INK,
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{escape(family)}" font-size="{size:g}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{ink}" xml:space="preserve">{escape(text)}</text>'
    )


if __name__ == "__main__":
    DRAWING.write_text(draw_session(), encoding="utf-8")
