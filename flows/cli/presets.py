"""The commands on what can be trained: the presets, and the settings of each.

Torch is imported by the commands that need it, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, EXIT_WRONG, JsonOption, print_json
from sensorium_data.errors import SensoriumError

if TYPE_CHECKING:
    from models.registry import PresetInfo

__all__ = ["models", "settings"]


def models(
    *target: Annotated[
        str, Parameter(help="Presets, or classes: FILE.py:CLASS, MODULE:CLASS. Default: all presets there are.")
    ],
    as_json: JsonOption = False,
) -> int:
    """List what can be trained: presets of this package, and those that installed packages offer."""
    from flows.cli.tables import error_console, print_table, table_console
    from models.registry import describe_preset, list_presets

    found = [describe_preset(name) for name in target] if target else list_presets()
    rows = [_to_row(info) for info in found]
    if as_json:
        print_json(rows)
    else:
        print_table(
            table_console(),
            "Presets",
            [{**row, "parameters": f"{row['parameters']:,}"} for row in rows if row["error"] is None],
            columns={
                "preset": "preset",
                "parameters": "parameters",
                "frames_lost": "frames lost",
                "origin": "from",
                "description": "what it is",
            },
            below=("description",),
            note="Parameters are of a model for the five new mice, 40,034 neurons.",
        )
    failed = [row for row in rows if row["error"] is not None]
    for row in failed:
        error_console().print(f"{row['preset']} of {row['origin']}: {row['error']}", markup=False, soft_wrap=True)
    return EXIT_WRONG if failed else EXIT_DONE


def settings(
    preset: Annotated[str, Parameter(help="A preset, or a class: FILE.py:CLASS, MODULE:CLASS.")],
    *setting: Annotated[str, Parameter(help="Settings to show, by name or a part of it, e.g. lr. Default: all.")],
    as_json: JsonOption = False,
) -> int:
    """List the settings of a preset, which `--set` of `train` changes: type, value and meaning."""
    from flows.cli.tables import print_table, table_console
    from models.registry import get_preset
    from models.setting import describe_settings, find_settings

    config = get_preset(preset)
    found = [one for text in setting for one in find_settings(config, text)] if setting else describe_settings(config)
    rows = list({one.name: asdict(one) for one in found}.values())
    if as_json:
        print_json(rows)
        return EXIT_DONE
    shown = [{**row, "value": _show(row["value"])} for row in rows]
    print_table(
        table_console(),
        f"Settings of {config.name}",
        shown,
        columns={"name": "setting", "value": "value", "type": "type", "description": "meaning"},
        below=("description",),
    )
    return EXIT_DONE


def _to_row(info: PresetInfo) -> dict[str, Any]:
    row: dict[str, Any] = {
        "preset": info.name,
        "origin": info.origin,
        "description": info.description,
        "model": None,
        "parameters": None,
        "frames_lost": None,
        "error": info.error,
    }
    if info.config is not None:
        from models.registry import measure_model

        try:
            row |= {"model": info.config.model.kind, **asdict(measure_model(info.config))}
        except SensoriumError as error:
            # All others are listed.
            row["error"] = str(error)
    return row


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
