"""The commands on archives and session stores.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    EXIT_WRONG,
    LOCAL_ONLY,
    FlowOption,
    JobsOption,
    JsonOption,
    ListOption,
    NoLockOption,
    SourceOption,
    StoreArgument,
    StoreOption,
    WholeNumber,
    check_jobs,
    complain,
    count_jobs,
    print_json,
    runs_as_flow,
    terminal_progress,
)
from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import SensoriumError, StoreError, UsageError

if TYPE_CHECKING:
    from sensorium_data.store import VerificationReport

__all__ = ["ingest", "inspect", "sample", "simulate", "verify"]


def simulate(
    directory: Annotated[
        Path, LOCAL_ONLY, Parameter(help="Where the archives go; the truth goes into its folder truth.")
    ],
    *,
    sessions: Annotated[list[str], ListOption, Parameter(help="Aliases, full names, new, old or all.")] = ["new"],  # noqa: B006
    trials: Annotated[
        int | None, WholeNumber, Parameter(help="Trials a session. Default: as many as published.")
    ] = None,
    neurons: Annotated[
        int | None, WholeNumber, Parameter(help="Neurons a session. Default: as many as published.")
    ] = None,
    seed: Annotated[int, WholeNumber, Parameter(help="The same seed gives the same bytes.")] = 0,
    zip64: Annotated[bool, Parameter(negative="", help="Write Zip64 fields as archives over 4 GB have them.")] = False,
    behavior_padding: Annotated[
        Literal["nan", "finite"],
        Parameter(help="What behavior holds past the valid frames: NaN, or the behavior after the stimulus."),
    ] = "nan",
    jobs: JobsOption = None,
) -> int:
    """Write simulated archives in GIN's layout, and their truth beside them."""
    from flows.cli.tables import error_console, print_table, table_console
    from flows.reporting import format_size
    from sensorium_data.sessions import find_sessions
    from sensorium_data.simulation import simulate as simulate_archives

    chosen = find_sessions(sessions)
    with terminal_progress() as progress:
        report = simulate_archives(
            directory,
            sessions=chosen,
            n_trials=trials,
            n_neurons=neurons,
            seed=seed,
            jobs=count_jobs(jobs),
            zip64=zip64,
            behavior_padding=behavior_padding,
            progress=progress,
        )
    error_console().print(f"{report.directory}: {report.status}")
    print_table(
        table_console(),
        "Simulated archives",
        [
            {
                "session": row.alias,
                "trials": row.n_trials,
                "neurons": row.n_neurons,
                "archive": row.path,
                "size": format_size(row.size_bytes),
            }
            for row in report.sessions
        ],
        below=("archive",),
    )
    return EXIT_DONE


def sample() -> int:
    """Print the path of a small store of two simulated sessions, E and I, which the first call makes."""
    from sensorium_data.sample import sample_store

    with terminal_progress() as progress:
        path = sample_store(progress=progress)
    # Other commands take the path as it is printed, so nothing else goes to standard output.
    print(path)
    return EXIT_DONE


def ingest(
    *session: Annotated[str, Parameter(help="Aliases A to J, full names, or new, old, all.")],
    store: StoreOption,
    source: SourceOption = None,
    mode: Annotated[
        Literal["auto", "stream", "download"],
        Parameter(
            help="Read archives in place, or download them first. auto: in place where the server answers byte ranges."
        ),
    ] = "auto",
    downloads: Annotated[str | None, Parameter(help="Where downloads are kept. Default: ~/.cache/sensorium.")] = None,
    precision: Annotated[
        Literal["exact", "exact64", "compact"] | None,
        Parameter(help="exact: float32. exact64: float64. compact: rounded. Default: as the store has it, or exact."),
    ] = None,
    resize: Annotated[
        str | None,
        Parameter(
            help="Resize frames to HEIGHTxWIDTH by the mean over areas, e.g. 36x64; none: as recorded. Default: as the "
            "store has it, or as recorded."
        ),
    ] = None,
    tier_map: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Rename tiers of other labs' recordings, e.g. validation=oracle; none: as recorded. Default: as the "
            "store has it, or as recorded.",
        ),
    ] = None,
    repair: Annotated[
        bool, Parameter(negative="", help="Read every object of finished stores, and convert again what is damaged.")
    ] = False,
    jobs: Annotated[
        int | None,
        WholeNumber,
        Parameter(name="--jobs", help="Trials at the same time, about 100 MB each. Default: one a core, 8 by network."),
    ] = None,
    dask: Annotated[
        str | None, Parameter(help="Address of a Dask scheduler whose workers convert, e.g. tcp://host:8786.")
    ] = None,
    no_lock: NoLockOption = False,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Convert archives into session stores; finished sessions are left alone, interrupted ones continued."""
    from dataclasses import asdict

    from flows.cli.tables import error_console, print_table, table_console
    from flows.reporting import format_size
    from flows.settings import Settings
    from sensorium_data.archive import Mode
    from sensorium_data.ingest import choose_sessions, ingest_sessions
    from sensorium_data.machine import bound_jobs
    from sensorium_data.movies import link_movies
    from sensorium_data.store import Precision, Store

    if not session:
        raise UsageError(
            "no session named",
            expected="aliases A to J, full names, or new, old, all",
            remedy=f"e.g. {quote_command('ingest', 'F', '--store', store)}",
        )
    check_jobs(jobs)
    defaults = Settings()
    sources = source or defaults.sources
    chosen = choose_sessions(session, sources, warn=complain)
    jobs = jobs or defaults.jobs
    if jobs is not None and dask is None:
        jobs = bound_jobs(jobs, warn=complain)
    downloads = downloads or defaults.downloads
    if runs_as_flow(flow, "flows.ingest"):
        from flows.ingest import ingest as ingest_flow

        names = [s.name for s in chosen]
        kept = None if precision is None else Precision(precision)
        reports = ingest_flow(
            names, store, sources, jobs, Mode(mode), downloads, kept, resize, tier_map, repair, dask, no_lock=no_lock
        )
        failures: list[SensoriumError] = []
    else:
        with terminal_progress() as progress:
            known = Store.at(store)
            done = ingest_sessions(
                chosen,
                known,
                sources=sources,
                mode=Mode(mode),
                downloads=downloads,
                precision=None if precision is None else Precision(precision),
                resize=resize,
                tier_map=tier_map,
                repairs=repair,
                jobs=jobs,
                dask=dask,
                lock=not no_lock,
                progress=progress,
            )
            reports, failures = list(done.sessions), list(done.failures)
            if reports:
                # What was converted is not in what was known of the store.
                is_unchanged = all(report.status == "already done" for report in reports)
                try:
                    link_movies(known if is_unchanged else store, progress=progress)
                except StoreError as error:
                    # Another session is damaged. What was done of these is told all the same.
                    failures.append(error)
    if as_json:
        print_json([asdict(report) for report in reports])
    elif reports:
        print_table(
            table_console(),
            f"Sessions in {store}",
            [
                {
                    "session": report.alias,
                    "status": report.status,
                    "trials": report.n_trials,
                    "size": format_size(report.store_size_bytes),
                    "precision": report.precision,
                    "seconds": f"{report.duration_s:.1f}",
                    "store": report.path,
                }
                for report in reports
            ],
            below=("store",),
        )
        for report in reports:
            for note in report.notes:
                error_console().print(f"session {report.alias}: {note}", soft_wrap=True)
    for failure in failures:
        complain(str(failure))
    return max((failure.exit_status for failure in failures), default=EXIT_DONE)


def inspect(
    store: StoreArgument,
    session: Annotated[str | None, Parameter(help="One session: its trials by tier and its quality checks.")] = None,
    *,
    report: Annotated[
        Path | None,
        LOCAL_ONLY,
        Parameter(help="Write the quality report, with pictures, to this HTML file. Default: none."),
    ] = None,
    jobs: Annotated[int, WholeNumber, Parameter(help="Trials read at the same time; each takes about 50 MB.")] = 4,
    as_json: JsonOption = False,
) -> int:
    """Show what is in a store; with a session or --report, check its quality.

    Checking reads every video and response once. Exit status 1 if a check failed: a defect, or a contradiction to
    what is known of the session. Counts that differ from the published ones are noted and do not fail: a part of
    a session is no defect.
    """
    from flows.cli.summaries import print_checks
    from flows.cli.tables import error_console, print_table, table_console
    from flows.reporting import format_size
    from sensorium_data.sessions import find_session
    from sensorium_data.store import describe_session, describe_store, ingest_command, open_store

    if session is None and report is None:
        frame = describe_store(store)
        if as_json:
            print_json(json.loads(frame.to_json(orient="records")))
        else:
            frame = frame.assign(size_bytes=[format_size(size) for size in frame["size_bytes"]])
            headings = {str(name): str(name).removesuffix("_bytes") for name in frame}
            long = ("session", "source")
            columns = {name: headings.pop(name) for name in list(headings) if name not in long} | headings
            print_table(table_console(), f"Sessions in {store}", frame, columns=columns, below=long)
        return EXIT_DONE

    from sensorium_data.movies import report_leakage, unlinked_sessions
    from sensorium_data.quality import StoreQuality, check_session, check_store

    if report is not None:
        from sensorium_data.quality import REPORT_FILE, write_report

        # Before an hour of reading, not after it.
        REPORT_FILE.require_writable(report)
    opened = open_store(store)
    with terminal_progress() as progress:
        if session is None:
            unlinked = unlinked_sessions(opened)
            leakage = None if unlinked else report_leakage(opened).to_table()
            quality = check_store(opened, leakage=leakage, jobs=count_jobs(jobs), progress=progress)
        else:
            only = check_session(opened, session, jobs=count_jobs(jobs), progress=progress)
            quality = StoreQuality(store, (only,))
    if report is not None:
        write_report(report, quality)
    status = EXIT_DONE if quality.passed else EXIT_WRONG
    if session is None:
        if as_json:
            print_json(quality.to_dict())
        else:
            print_table(table_console(), f"Quality of {store}", quality.to_table())
    else:
        (only,) = quality.sessions
        tiers = describe_session(opened, session)
        if as_json:
            print_json({"tiers": json.loads(tiers.to_json(orient="records")), "quality": only.to_dict()})
        else:
            print_table(table_console(), f"Trials of session {session}", tiers)
            print_checks(table_console(), only)
    if not as_json:
        table_console().print()
        table_console().print(f"{quality.describe()}.", soft_wrap=True)
    if session is None and unlinked:
        first = find_session(unlinked[0])
        error_console().print(
            "leakage is left out: the sessions' movies have not been compared; "
            f"`{ingest_command(opened.objects, first, opened.group(first))}` does it",
            soft_wrap=True,
        )
    if report is not None:
        error_console().print(f"{report}: written", soft_wrap=True)
    return status


def verify(
    path: Annotated[str, Parameter(help="A store, predictions, a run, or a submission: its folder, or one zip.")],
    *session: Annotated[str, Parameter(help="Sessions of a store to verify. Default: all.")],
    source: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Compare every trial with the archives as well: folders or URLs, or gin for where they are published.",
        ),
    ] = None,
    all_versions: Annotated[
        bool, Parameter(negative="", help="Verify old versions of the sessions as well, not the current ones alone.")
    ] = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Recompute the digest of every stored object and compare it with the ledger. Exit status 1 if any differs.

    An interrupted verification is continued if it is started again within 24 hours.
    """
    from dataclasses import asdict

    from flows.cli.tables import error_console, print_table, table_console
    from flows.cli.verification import verify_path
    from flows.reporting import format_size

    notes: list[str] = []
    with terminal_progress() as progress:
        reports, failures = verify_path(
            path,
            session,
            source=source,
            jobs=count_jobs(jobs),
            progress=progress,
            all_versions=all_versions,
            note=notes.append,
        )
    problems = [
        f"session {report.session}{_version_of(report)}: {problem}" if report.session else problem
        for report in reports
        for problem in report.problems
    ]
    if as_json:
        print_json([asdict(report) for report in reports])
    elif reports or failures:
        print_table(
            table_console(),
            f"Verification of {path}",
            [
                {
                    "session": f"{_alias_of(report.session)}{_version_of(report)}" or "(its own files)",
                    "compared with": report.compared_with,
                    "objects or trials": report.n_objects,
                    "size": format_size(report.size_bytes),
                    "result": count_things(len(report.problems), "problem") if report.problems else "as it should be",
                }
                for report in reports
            ]
            + [{"session": _alias_of(failure.session), "result": "cannot be verified"} for failure in failures],
        )
    for report in reports:
        if report.n_resumed:
            error_console().print(
                f"{report.n_resumed} of {report.n_objects} objects were found sound by the verification that this one "
                "continues",
                soft_wrap=True,
            )
    for line in (*notes, *problems):
        error_console().print(line, soft_wrap=True)
    # The store's own files are written again only where its sessions are sound.
    damaged = sorted((report for report in reports if report.problems), key=lambda report: not report.session)
    for remedy in dict.fromkeys(report.remedy for report in damaged):
        error_console().print(f"What to do: {remedy}", soft_wrap=True)
    for failure in failures:
        complain(str(failure))
    return EXIT_WRONG if problems or failures else EXIT_DONE


def _version_of(report: VerificationReport) -> str:
    """Return which version of a session a report is of, where it is an old one."""
    return "" if report.old_version is None else f", version {report.old_version}"


def _alias_of(session: object) -> str:
    """Return the alias of a session that a report or an error names, in full or not; empty for none."""
    from sensorium_data.sessions import Session, find_session

    if isinstance(session, Session):
        return session.alias
    return find_session(str(session)).alias if session else ""
