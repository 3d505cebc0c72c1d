"""Archives → session stores → quality report, one task a session.

Prefect reads the descriptions in its forms from the ``Args:`` of a flow's docstring, and from nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.parameters import Jobs, Names
from flows.quality import link_task, quality_task, report_quality_task, require_writable_report
from flows.reporting import log_line, order_columns, publish_table, quiet_known_errors, run_progress
from flows.settings import Settings
from flows.watching import watched
from sensorium_data.archive import Mode
from sensorium_data.counting import count_things
from sensorium_data.errors import SensoriumError
from sensorium_data.ingest import (
    SESSIONS_AT_ONCE,
    ConversionReport,
    IngestReport,
    SessionConverter,
    choose_sessions,
)
from sensorium_data.machine import bound_jobs
from sensorium_data.sessions import find_session
from sensorium_data.store import Precision

__all__ = ["ingest"]

# Of a conversion's report, what the page of the table shows without moving it, and what is long.
_FIRST = ("alias", "status", "n_trials", "n_trials_resumed", "n_trials_copied", "store_size_bytes", "duration_s")
_LAST = ("notes", "source", "path", "session")


# The store's own ledger says what is done; a cached task result would outlive a deleted store.
@task(name="convert", task_run_name="convert {session}", cache_policy=NO_CACHE)
def convert_task(session: str, converter: SessionConverter) -> ConversionReport:
    """Convert one session's archive, or find that it is converted already."""
    quiet_known_errors()
    report = converter.convert(find_session(session), run_progress())
    log_line(f"session {report.alias}: {report.status}, {count_things(report.n_trials, 'trial')} in {report.path}")
    for note in report.notes:
        log_line(f"session {report.alias}: {note}")
    return report


@watched
@flow(
    name="ingest",
    flow_run_name="ingest {sessions}",
    task_runner=ThreadPoolTaskRunner(max_workers=SESSIONS_AT_ONCE),  # type: ignore[arg-type]
)
def ingest(
    sessions: Names,
    store: str,
    source: list[str] | str | None = None,
    jobs: Jobs = None,
    mode: Mode = Mode.AUTO,
    downloads: str | None = None,
    precision: Precision | None = None,
    resize: str | None = None,
    tier_map: list[str] | None = None,
    repair: bool = False,
    dask: str | None = None,
    quality_report: str | None = None,
    no_lock: bool = False,
) -> list[ConversionReport]:
    """Convert archives into session stores; sessions whose store is finished are left alone.

    One session's failure does not keep the others from being converted; the flow fails at its end.

    Args:
        sessions: Aliases A to J, full names, or one of new, old, all.
        store: Root of the session stores: a folder or any fsspec URL.
        source: Where archives or unpacked folders are: folders or URLs, tried in this order. Unset: GIN.
        jobs: Trials converted at the same time. Unset: one a CPU core, or 8 where archives come by network.
        mode: auto reads archives in place where the server sends byte ranges, stream always, download never.
        downloads: Folder that downloaded archives are kept in. Unset: SENSORIUM_DOWNLOADS, or the user's cache.
        precision: exact is float32, exact64 is float64, compact is rounded. Unset: as the store has it, or exact.
        resize: Frame size that videos are resized to by the mean over areas, e.g. 36x64. Unset: as the store has it.
        tier_map: New names of other labs' tiers, e.g. validation=oracle. Unset: as the store has it.
        repair: Read every object of finished stores, and convert anew what is damaged.
        dask: Address of a Dask scheduler whose workers convert. Unset: this process does.
        quality_report: HTML file for the quality report, with pictures; an earlier one is replaced. Unset: none.
        no_lock: Do not lock the sessions in an object store, for stores that cannot be locked.
    """
    quiet_known_errors()
    require_writable_report(quality_report)
    settings = Settings()
    sources = settings.sources if source is None else [source] if isinstance(source, str) else source
    n_jobs = jobs or settings.jobs
    if n_jobs is not None and dask is None:
        n_jobs = bound_jobs(n_jobs, warn=log_line)
    reports: list[ConversionReport] = []
    failures: list[SensoriumError] = []
    chosen = choose_sessions(sessions, sources, warn=log_line)
    converter = SessionConverter(
        store,
        sources=sources,
        jobs=n_jobs,
        mode=Mode(mode),
        downloads=downloads or settings.downloads,
        precision=None if precision is None else Precision(precision),
        resize=resize,
        tier_map=tier_map,
        repairs=repair,
        dask=dask,
        lock=not no_lock,
        progress=run_progress(),
    )
    # The end of the block waits for the sessions under way, also after Ctrl-C.
    with converter:
        for future in [convert_task.submit(session.name, converter) for session in chosen]:
            try:
                reports.append(future.result())
            except SensoriumError as error:
                failures.append(error)
    if reports:
        rows = order_columns(pd.DataFrame(map(asdict, reports)), _FIRST, _LAST)
        publish_table("ingest", rows, f"Sessions in `{store}`: what was done")
        leakage = link_task(store)
        # What was checked and has not changed since need not be read again.
        new = [one for one in reports if one.status != "already done" or quality_report is not None]
        checked = [quality_task(one.session, store) for one in new]
        if checked:
            report_quality_task(store, checked, leakage, quality_report)
    IngestReport(tuple(reports), tuple(failures)).raise_failures()
    return reports
