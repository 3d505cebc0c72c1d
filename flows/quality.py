"""Session stores → their quality: a report of each session, leakage between them, one page for all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.parameters import Names
from flows.reporting import (
    log_line,
    publish_checks,
    publish_quality,
    publish_table,
    quiet_known_errors,
    run_progress,
)
from flows.watching import watched
from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError
from sensorium_data.movies import link_movies, report_leakage
from sensorium_data.quality import QualityReport, StoreQuality, check_session
from sensorium_data.sessions import find_sessions
from sensorium_data.store import stored_sessions

__all__ = ["link_task", "quality", "quality_task", "report_quality_task", "require_writable_report"]


@task(name="check quality", task_run_name="check quality of {session}", cache_policy=NO_CACHE)
def quality_task(session: str, store: str) -> QualityReport:
    """Check one published session and publish the report as a table."""
    quiet_known_errors()
    report = check_session(store, session, progress=run_progress())
    publish_checks(report, store)
    for check in report.failed:
        log_line(f"session {report.alias}: {check.check} failed: found {check.found}, expected {check.expected}")
    return report


@task(name="report quality", task_run_name="report quality of {store}", cache_policy=NO_CACHE)
def report_quality_task(
    store: str, reports: list[QualityReport], leakage: pd.DataFrame | None, html: str | None
) -> StoreQuality:
    """Publish the store's sessions side by side as Markdown, and write the whole report where it is asked for."""
    quiet_known_errors()
    quality = StoreQuality(store, tuple(reports), leakage)
    if html is not None:
        from sensorium_data.quality import write_report

        write_report(Path(html), quality)
        log_line(f"quality report: {html}")
    publish_quality(quality, html)
    return quality


@task(name="link movies", cache_policy=NO_CACHE)
def link_task(store: str) -> pd.DataFrame:
    """Give movies that several sessions show common ids; publish and return which of them would leak."""
    quiet_known_errors()
    links = link_movies(store, progress=run_progress())
    movies = count_things(links.n_linked_movies, "movie")
    log_line(f"{movies} of {count_things(len(links.sessions), 'session')} shown by another session too")
    leaks = report_leakage(store)
    publish_table(
        "leakage", leaks.count_by_tiers(), f"Movies of `{store}` scored in one session and trained on in another"
    )
    return leaks.to_table()


def require_writable_report(html: str | None) -> None:
    """Raise a :class:`SensoriumError` if the quality report is wanted and cannot be written: before all the reading."""
    if html is not None:
        from sensorium_data.quality import REPORT_FILE

        REPORT_FILE.require_writable(Path(html))


@watched
@flow(name="quality", flow_run_name="quality of {store}")
def quality(
    store: str,
    sessions: Names | None = None,
    quality_report: str | None = None,
) -> StoreQuality:
    """Check the quality of stored sessions; the flow fails at its end if a check failed.

    Args:
        store: Root of the session stores: a folder or any fsspec URL.
        sessions: Aliases A to J, full names, or one of new, old, all. Unset: all in the store.
        quality_report: HTML file for the quality report, with pictures; an earlier one is replaced. Unset: none.
    """
    quiet_known_errors()
    require_writable_report(quality_report)
    chosen = stored_sessions(store) if sessions is None else find_sessions(sessions)
    leakage = link_task(store)
    report = report_quality_task(
        store, [quality_task(session.name, store) for session in chosen], leakage, quality_report
    )
    if not report.passed:
        worst = next(one for one in report.sessions if one.failed)
        failed = [f"{one.alias}: {check.check}" for one in report.sessions for check in one.failed]
        raise StoreError(
            "quality checks failed",
            path=store,
            found="; ".join(failed),
            remedy=f"read the artifact quality, or run {quote_command('inspect', store, worst.alias)}",
        )
    return report
