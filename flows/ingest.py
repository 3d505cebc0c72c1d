"""Archives → session stores → quality report, one task a session.

Prefect reads the descriptions in its forms from the ``Args:`` of a flow's docstring, and from nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import publish_markdown, publish_table
from flows.run_logging import log_line, quiet_known_errors, run_progress
from flows.settings import Settings
from sensorium_data.convert import ConversionReport, convert_session
from sensorium_data.errors import SensoriumError
from sensorium_data.quality import QualityReport, StoreQuality, check_session
from sensorium_data.sessions import find_session, find_sessions

__all__ = ["Jobs", "SessionNames", "ingest"]

SessionNames = Annotated[list[str], Field(min_length=1)]
Jobs = Annotated[int | None, Field(ge=1, le=256)]


# The store's own ledger says what is done; a cached task result would outlive a deleted store.
@task(name="convert", task_run_name="convert {session}", cache_policy=NO_CACHE)
def convert_task(session: str, store: str, source: str | None, jobs: int) -> ConversionReport:
    """Convert one session's archive, or find that it is converted already."""
    quiet_known_errors()
    report = convert_session(find_session(session), store, source=source, jobs=jobs, progress=run_progress())
    log_line(f"session {report.alias}: {report.status}, {report.n_trials} trials in {report.path}")
    for note in report.notes:
        log_line(f"session {report.alias}: {note}")
    return report


@task(name="check quality", task_run_name="check quality of {session}", cache_policy=NO_CACHE)
def quality_task(session: str, store: str) -> QualityReport:
    """Check one published session and publish the report as a table."""
    quiet_known_errors()
    report = check_session(store, session, progress=run_progress())
    publish_table(f"quality-{report.alias}", report.to_table(), f"Quality of session {report.alias} in `{store}`")
    return report


@task(name="report quality", task_run_name="report quality of {store}", cache_policy=NO_CACHE)
def report_quality_task(store: str, reports: list[QualityReport], html: str | None) -> None:
    """Publish the sessions side by side as Markdown, and write the whole report where it is asked for."""
    quiet_known_errors()
    quality = StoreQuality(store, tuple(reports))
    if html is not None:
        from sensorium_data.quality_report import write_report

        write_report(Path(html), quality)
        log_line(f"quality report: {html}")
    publish_markdown("quality", quality.to_markdown(html=html), f"Quality of the sessions in `{store}`")


@flow(name="ingest", flow_run_name="ingest {sessions}")
def ingest(
    sessions: SessionNames,
    store: str,
    source: str | None = None,
    jobs: Jobs = None,
    quality_report: str | None = None,
) -> list[ConversionReport]:
    """Convert archives into session stores; sessions whose store is finished are left alone.

    One session's failure does not keep the others from being converted; the flow fails at its end.

    Args:
        sessions: Aliases A to J, full names, or one of new, old, all.
        store: Root of the session stores: a folder or any fsspec URL.
        source: Where the archives are: a folder or URL holding <session>.zip. Unset: GIN.
        jobs: Trials converted at the same time. Unset: one a CPU core.
        quality_report: HTML file for the quality report, with pictures. Unset: none.
    """
    quiet_known_errors()
    settings = Settings()
    if quality_report is not None:
        from sensorium_data.quality_report import require_writable

        require_writable(Path(quality_report))
    reports: list[ConversionReport] = []
    checked: list[QualityReport] = []
    failures: list[SensoriumError] = []
    for session in find_sessions(sessions):
        try:
            reports.append(convert_task(session.name, store, source or settings.source, jobs or settings.jobs))
            checked.append(quality_task(session.name, store))
        except SensoriumError as error:
            failures.append(error)
    if reports:
        publish_table("ingest", [asdict(report) for report in reports], f"Sessions in `{store}`: what was done")
    if checked:
        report_quality_task(store, checked, quality_report)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise SensoriumError(
            f"{len(failures)} of {len(failures) + len(reports)} sessions could not be converted",
            found=" | ".join(str(failure) for failure in failures),
            remedy="mend what each message says and run the same command again; finished sessions are kept",
        )
    return reports
