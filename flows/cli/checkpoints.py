"""The commands on checkpoints of other software.

Torch is imported by the commands that need it, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    LOCAL_ONLY,
    JsonOption,
    ListOption,
    NoLockOption,
    key_values,
    print_json,
)
from sensorium_data.counting import count_things

__all__ = ["export_checkpoint", "import_checkpoint"]


def import_checkpoint(
    format: Annotated[
        str, Parameter(help="Whose file it is: starter-kit, argus, dynamic-v1fm, vivit or vivit-closed-loop.")
    ],
    /,
    *file: Annotated[
        Path,
        LOCAL_ONLY,
        Parameter(help="The file of weights, e.g. final.pth; after it, args.yaml if it lies elsewhere."),
    ],
    store: Annotated[
        str, Parameter(help="Root of the session stores that the model was trained on: a folder or fsspec URL.")
    ],
    out: Annotated[str, Parameter(help="The folder of the run to write.")],
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions of the file to take. Default: all, which the store has.")
    ] = None,
    preset: Annotated[
        str | None,
        Parameter(
            help="Preset that has what no weight tells, as padding and strides. Default: one of the file's sizes."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        ListOption,
        Parameter(name="--set", help="Settings to change, e.g. --set model.pads_frames=true."),
    ] = None,
    no_lock: NoLockOption = False,
    as_json: JsonOption = False,
) -> int:
    """Make a run of weights that other software saved: it predicts, and is scored and submitted, as any other run."""
    from flows.cli.tables import table_console
    from models.conversion import import_checkpoint as import_file

    report = import_file(
        format,
        file,
        store,
        out,
        sessions=sessions,
        preset=preset,
        settings=key_values(settings or []),
        lock=not no_lock,
    )
    if as_json:
        print_json(asdict(report))
        return EXIT_DONE
    console = table_console()
    console.print(
        f"{report.run}: {report.status}, {report.preset}, {count_things(len(report.sessions), 'session')}, "
        f"{count_things(report.n_parameters, 'parameter')}",
        soft_wrap=True,
    )
    for note in report.notes:
        console.print(note, markup=False, soft_wrap=True)
    return EXIT_DONE


def export_checkpoint(
    run: Annotated[str, Parameter(help="The training run.")],
    file: Annotated[Path, LOCAL_ONLY, Parameter(help="The file of weights to write.")],
    /,
    *,
    format: Annotated[
        str,
        Parameter(help="Which software is to read it: starter-kit, argus, dynamic-v1fm, vivit or vivit-closed-loop."),
    ],
    as_json: JsonOption = False,
) -> int:
    """Write the weights of a run as other software saves them. An imported run gives its file's numbers, bit by bit."""
    from flows.cli.tables import table_console
    from models.conversion import export_checkpoint as export_run

    report = export_run(run, format, file)
    if as_json:
        print_json(asdict(report))
    else:
        table_console().print(
            f"{report.file}: {report.status}, {count_things(report.n_weights, 'weight')}", soft_wrap=True
        )
        if report.settings:
            settings = " ".join(f"{name}={value}" for name, value in report.settings.items())
            table_console().print(f"No weight tells these settings of the model: {settings}", soft_wrap=True)
    return EXIT_DONE
