"""The quality of a store's sessions as artifacts: of those checked now, and of those whose checks still hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.reporting.artifacts import publish_markdown, publish_table, read_tables, show_text
from flows.reporting.file_links import FileLinks, publish_file
from flows.reporting.run_logging import log_line
from flows.watching import report
from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError
from sensorium_data.markdown import write_table
from sensorium_data.store import open_store

if TYPE_CHECKING:
    from sensorium_data.quality import QualityReport, StoreQuality

__all__ = ["CheckedSession", "find_checks", "publish_checks", "publish_quality", "tabulate_checks"]

# A key has the tables of all stores with a session of that alias.
_N_NEWEST = 20


@dataclass(frozen=True)
class CheckedSession:
    """A session of a store, and what was last published of its checks.

    Attributes
    ----------
    alias : str
        The session's.
    outcomes : mapping of str to int
        How many checks came to each outcome; empty if none are known of this content of the session.
    checked : datetime or None
        When that was published.
    """

    alias: str
    outcomes: Mapping[str, int]
    checked: datetime | None

    def to_cells(self) -> list[object]:
        """Return the session's line of a table: alias, failed, noted, passed, and when it was checked."""
        if self.checked is None:
            return [self.alias, "", "", "", "never, as it is now"]
        counts: list[object] = [self.outcomes.get(outcome, 0) for outcome in ("failed", "noted", "passed")]
        return [self.alias, *counts, f"{self.checked.astimezone(UTC):%Y-%m-%d %H:%M} UTC"]


def publish_checks(checked: QualityReport, store: str) -> None:
    """Publish a session's checks as the table ``quality-<alias>``."""
    description = _describe(checked.alias, store, checked.digest)
    publish_table(f"quality-{checked.alias}", checked.to_table(), description)


def find_checks(store: str) -> list[CheckedSession]:
    """Return every session of a store with its checks, as the server knows them of the content that it has now."""
    opened = open_store(store)
    found = []
    for session in opened.sessions:
        try:
            description = show_text(_describe(session.alias, store, opened.digest(session)))
        except StoreError:
            # Who reads the session says what is wrong with it.
            found.append(CheckedSession(session.alias, {}, None))
            continue
        tables = read_tables(f"quality-{session.alias}", limit=_N_NEWEST)
        table = next((one for one in tables if one.description == description), None)
        outcomes = Counter() if table is None else Counter(map(str, table.rows.get("outcome", ())))
        found.append(CheckedSession(session.alias, outcomes, None if table is None else table.published))
    return found


def publish_quality(quality: StoreQuality, html: str | None) -> None:
    """Publish the sessions that were checked side by side as ``quality``, and when the store's others were.

    Parameters
    ----------
    quality : StoreQuality
        Of the sessions that were checked now.
    html : str, optional
        Where the whole report was written.
    """
    links = FileLinks.from_settings()
    parts = []
    if html is not None:
        publish_file("quality-report", html, f"Quality report of `{quality.store}`")
        parts.append(f"The whole report, with pictures: {links.show(html)}")
    anew = {one.alias for one in quality.sessions}

    def publish() -> None:
        earlier = [one for one in find_checks(quality.store) if one.alias not in anew]
        verdict = describe_all(quality, earlier)
        remark = ["Not checked anew:", tabulate_checks(earlier)] if earlier else []
        text = "\n\n".join([quality.to_markdown(verdict=verdict), *parts, *remark])
        publish_markdown("quality", text, f"Quality of the sessions in `{quality.store}`", signed=links.signed)
        log_line(verdict)

    # What was published earlier can only be read when the server is there.
    report(publish)


def describe_all(quality: StoreQuality, earlier: Sequence[CheckedSession]) -> str:
    """Return the verdict on all sessions of a store in one sentence, and how many of them were checked anew.

    Parameters
    ----------
    quality : StoreQuality
        Of the sessions that were checked now.
    earlier : sequence of CheckedSession
        The others.
    """
    known = [one for one in earlier if one.checked is not None]
    n_failed = [len(one.failed) for one in quality.sessions] + [one.outcomes.get("failed", 0) for one in known]
    n_wrong = sum(map(bool, n_failed))
    head = f"{count_things(sum(n_failed), 'check')} failed in {n_wrong} of" if n_wrong else "No check failed in"
    remarks = [f"{len(quality.sessions)} checked anew"]
    if known:
        remarks.append(f"{len(known)} earlier")
    if len(known) < len(earlier):
        remarks.append(f"{len(earlier) - len(known)} more not checked with this content")
    simulated = [one.alias for one in quality.sessions if one.is_simulated]
    if simulated:
        remarks.append(f"simulated, no recordings: {', '.join(simulated)}")
    return f"{head} {count_things(len(n_failed), 'session')} ({'; '.join(remarks)})"


def tabulate_checks(sessions: Sequence[CheckedSession], only: Collection[str] | None = None) -> str:
    """Return checks in Markdown, a line a session; of some aliases only, if those are given."""
    rows = [one.to_cells() for one in sessions if only is None or one.alias in only]
    return write_table(["Session", "Failed", "Noted", "Passed", "Checked"], rows)


def _describe(alias: str, store: str, digest: str) -> str:
    return f"Quality of session {alias} in `{store}`, content {digest}"
