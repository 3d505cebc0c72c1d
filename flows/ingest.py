"""Archives → session stores → quality report, one task a session.

Prefect reads the descriptions in its forms from the ``Args:`` of a flow's docstring, and from nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import publish_markdown, publish_table
from flows.run_logging import log_line, quiet_known_errors, run_progress
from flows.settings import Settings
from sensorium_data.convert import ConversionReport
from sensorium_data.errors import SensoriumError
from sensorium_data.ingest import IngestReport, choose_sessions, ingest_sessions
from sensorium_data.leakage import report_leakage
from sensorium_data.mirrors import Mode
from sensorium_data.movie_links import link_movies
from sensorium_data.precision import Precision
from sensorium_data.quality import QualityReport, StoreQuality, check_session
from sensorium_data.sessions import find_session

__all__ = ["Jobs", "SessionNames", "ingest"]

SessionNames = Annotated[list[str], Field(min_length=1)]
Jobs = Annotated[int | None, Field(ge=1, le=256)]


# The store's own ledger says what is done; a cached task result would outlive a deleted store.
@task(name="convert", task_run_name="convert {session}", cache_policy=NO_CACHE)
def convert_task(session: str, store: str, **options: Any) -> ConversionReport:
    """Convert one session's archive, or find that it is converted already."""
    quiet_known_errors()
    done = ingest_sessions([find_session(session)], store, progress=run_progress(), **options)
    done.raise_failures()
    (report,) = done.sessions
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
def report_quality_task(store: str, reports: list[QualityReport], leakage: pd.DataFrame, html: str | None) -> None:
    """Publish the sessions side by side as Markdown, and write the whole report where it is asked for."""
    quiet_known_errors()
    quality = StoreQuality(store, tuple(reports), leakage)
    if html is not None:
        from sensorium_data.quality_report import write_report

        write_report(Path(html), quality)
        log_line(f"quality report: {html}")
    publish_markdown("quality", quality.to_markdown(html=html), f"Quality of the sessions in `{store}`")


@task(name="link movies", cache_policy=NO_CACHE)
def link_task(store: str) -> pd.DataFrame:
    """Give movies that several sessions show common ids; publish and return which of them would leak."""
    quiet_known_errors()
    links = link_movies(store, progress=run_progress())
    log_line(f"{links.n_linked_movies} movies of {len(links.sessions)} sessions are shown by another session too")
    leaks = report_leakage(store)
    publish_table(
        "leakage", leaks.count_by_tiers(), f"Movies of `{store}` scored in one session and trained on in another"
    )
    return leaks.to_table()


@flow(name="ingest", flow_run_name="ingest {sessions}")
def ingest(
    sessions: SessionNames,
    store: str,
    source: list[str] | str | None = None,
    jobs: Jobs = None,
    mode: Mode = Mode.AUTO,
    downloads: str | None = None,
    precision: Precision | None = None,
    repair: bool = False,
    dask: str | None = None,
    quality_report: str | None = None,
) -> list[ConversionReport]:
    """Convert archives into session stores; sessions whose store is finished are left alone.

    One session's failure does not keep the others from being converted; the flow fails at its end.

    Args:
        sessions: Aliases A to J, full names, or one of new, old, all.
        store: Root of the session stores: a folder or any fsspec URL.
        source: Where the archives are: folders or URLs holding <session>.zip, tried in this order. Unset: GIN.
        jobs: Trials converted at the same time. Unset: one a CPU core, or 8 where archives come by network.
        mode: auto reads archives in place where the server sends byte ranges, stream always, download never.
        downloads: Folder that downloaded archives are kept in. Unset: SENSORIUM_DOWNLOADS, or the user's cache.
        precision: exact is float32, exact64 is float64, compact is rounded. Unset: as the store has it, or exact.
        repair: Read every object of finished stores, and convert anew what is damaged.
        dask: Address of a Dask scheduler whose workers convert. Unset: this process does.
        quality_report: HTML file for the quality report, with pictures. Unset: none.
    """
    quiet_known_errors()
    if quality_report is not None:
        from sensorium_data.quality_report import require_writable

        require_writable(Path(quality_report))
    settings = Settings()
    sources = settings.sources if source is None else [source] if isinstance(source, str) else source
    options = {
        "sources": sources,
        "jobs": jobs or settings.jobs,
        "mode": Mode(mode),
        "downloads": downloads or settings.downloads,
        "precision": None if precision is None else Precision(precision),
        "repairs": repair,
        "dask": dask,
    }
    reports: list[ConversionReport] = []
    failures: list[SensoriumError] = []
    for session in choose_sessions(sessions, sources):
        try:
            reports.append(convert_task(session.name, store, **options))
        except SensoriumError as error:
            failures.append(error)
    if reports:
        publish_table("ingest", [asdict(report) for report in reports], f"Sessions in `{store}`: what was done")
        leakage = link_task(store)
        # What was checked and has not changed since need not be read again.
        new = [one for one in reports if one.status != "already done" or quality_report is not None]
        checked = [quality_task(one.session, store) for one in new]
        if checked:
            report_quality_task(store, checked, leakage, quality_report)
    IngestReport(tuple(reports), tuple(failures)).raise_failures()
    return reports
