"""The commands on submissions.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    EXIT_WRONG,
    LOCAL_ONLY,
    FlowOption,
    FramesName,
    JsonOption,
    NoLockOption,
    StoreOption,
    print_json,
    runs_as_flow,
    say,
    terminal_progress,
)
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.predictions import parse_weights

if TYPE_CHECKING:
    from sensorium_data.submission import ValidationReport

__all__ = ["from_arrays", "submit", "validate"]


def from_arrays(
    folder: Annotated[str, LOCAL_ONLY, Parameter(help="Folder with SESSION/TRIAL.npy: arrays (neurons, frames).")],
    *,
    store: StoreOption,
    units: Annotated[
        Literal["standardized", "raw"],
        Parameter(
            help="Units of the arrays: standardized, the competition's (responses divided by their standard deviation, "
            "frame by frame), or raw, those of the recorded responses."
        ),
    ],
    out: Annotated[str, Parameter(help="The predictions store to write; score and submit take it.")],
    title: Annotated[str | None, Parameter(help="What to call the predictions.")] = None,
    no_lock: NoLockOption = False,
) -> int:
    """Take another model's predictions: a folder of arrays becomes a predictions store.

    SESSION is an alias or a full name, TRIAL the number of the trial's file in the archive. Neurons are in the
    archive's order; frames end with the trial's last valid one, and those that are missing are taken to be the first.
    """
    from flows.cli.tables import table_console
    from sensorium_data.predictions import from_folder

    attributes = {} if title is None else {"title": title}
    with terminal_progress() as progress:
        report = from_folder(
            out, store, folder, response_units=units, attributes=attributes, lock=not no_lock, progress=progress
        )
    table_console().print(f"{out}: {report.status}, {count_things(report.n_trials, 'trial')}", soft_wrap=True)
    return EXIT_DONE


def submit(
    *predictions: Annotated[str, Parameter(help="Predictions stores; several are averaged.")],
    store: StoreOption,
    track: Annotated[Literal["main", "bonus"], Parameter(help="Which track's zips to write.")],
    frames: Annotated[
        FramesName,
        Parameter(help="Which frames of a trial the file holds; official: all but the first 50."),
    ] = "official",
    dtype: Annotated[
        Literal["float32", "float64"], Parameter(help="Type of the values; float64 doubles the size.")
    ] = "float32",
    weights: Annotated[
        str | None, Parameter(help="How much each of several stores counts, e.g. 1,2. Default: all the same.")
    ] = None,
    out: Annotated[str, Parameter(help="Folder for the zips, or any fsspec URL.")] = "submission",
    runs: Annotated[
        str | None, Parameter(help="Folder or URL of training runs, which the model card quotes. Default: runs.")
    ] = None,
    no_lock: NoLockOption = False,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Write a track's submission zips, validated before they get their names, and a model card beside them."""
    from flows.cli.summaries import print_submission
    from flows.cli.tables import error_console, table_console
    from flows.reporting import describe_submission
    from flows.settings import Settings
    from sensorium_data.sessions import Track

    if not predictions:
        raise UsageError("no predictions named", expected="one predictions store or more", remedy="name them")
    shares = parse_weights(weights, len(predictions))
    runs = runs or Settings().runs
    if runs_as_flow(flow, "flows.submit"):
        from flows.submit import submit as submit_flow

        reports = submit_flow(
            list(predictions), store, out, [Track(track)], frames, dtype, shares, runs, no_lock=no_lock
        )
    else:
        import zarr

        from sensorium_data.submission import write_submission

        # One block is read at a time; each of several threads would only keep the memory of the last one it read.
        zarr.config.set({"threading.max_workers": 1})
        with terminal_progress() as progress:
            reports = [
                write_submission(
                    predictions,
                    store,
                    track=Track(track),
                    frames=frames,
                    float_type=dtype,
                    weights=shares,
                    out=out,
                    runs=runs,
                    lock=not no_lock,
                    progress=progress,
                )
            ]
    console = table_console()
    for report in reports:
        if as_json:
            print_json(describe_submission(report))
        else:
            print_submission(console, report)
        for note in (*report.notes, *report.validation.warnings):
            error_console().print(note, soft_wrap=True)
    return EXIT_DONE


def validate(
    *files: Annotated[str, Parameter(help="Submission zips, or Parquet files of one: paths or URLs.")],
    store: StoreOption,
    frames: Annotated[
        FramesName | None,
        Parameter(help="The frames to insist on. Default: any of the three, but one for all trials."),
    ] = None,
    fix: Annotated[
        str | None,
        LOCAL_ONLY,
        Parameter(
            help="Folder for a corrected copy: names, packing, order of rows and neurons, spelling of trials and "
            "sessions. Values are never changed. The exit status is the copy's."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check anybody's submission files; every violation at once. Exit status 1 if there is any."""
    from flows.cli.tables import table_console
    from sensorium_data.store import open_store
    from sensorium_data.submission import fetch_files, parquet_reader, repair_submission, validate_submission

    if not files:
        raise UsageError("no file named", expected="zips or Parquet files", remedy="name the files to validate")
    opened = open_store(store)
    with (
        terminal_progress() as progress,
        parquet_reader(),
        fetch_files(files, progress=progress) as local,
    ):
        report = validate_submission(local, opened, frames=frames, progress=progress)
        repair = None if fix is None else repair_submission(local, opened, out=fix, frames=frames, progress=progress)
    if as_json:
        copy = {} if repair is None else {"copy": repair.to_dict()}
        print_json({"passed": report.passed, **report.to_dict(), **copy})
    else:
        _print_findings("Checks", report)
    last = report
    if repair is not None:
        last = repair.validation
        if not as_json:
            console = table_console()
            console.print(f"{fix}: {repair.status}", soft_wrap=True)
            for line in (*repair.corrections, *(f"not in the copy: {reason}" for reason in repair.left_out)):
                console.print(line, soft_wrap=True)
            _print_findings(f"Checks of the corrected copy in {fix}", repair.validation, told=report.warnings)
    return EXIT_DONE if last.passed else EXIT_WRONG


def _print_findings(title: str, report: ValidationReport, *, told: Sequence[str] = ()) -> None:
    from flows.cli.summaries import print_findings
    from flows.cli.tables import table_console

    print_findings(table_console(), title, report)
    for finding in (*report.violations, *(warning for warning in report.warnings if warning not in told)):
        say(str(finding))
