"""The quality of a session store: what is in it, and checks against what is published and known of the recordings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from sensorium_data.counting import count_things
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.quality.checks import Outcome, QualityCheck, check_recording
from sensorium_data.quality.scan import StimulusSample, scan_session
from sensorium_data.quality.summary import (
    ChannelSummary,
    ModalityLengths,
    ResponseSummary,
    StimulusSummary,
    TierSummary,
    summarize_channels,
    summarize_lengths,
    summarize_neurons,
    summarize_responses,
    summarize_stimuli,
    summarize_tiers,
)
from sensorium_data.sessions import find_session
from sensorium_data.statistics import read_coverage
from sensorium_data.store import StoreLike, open_store
from sensorium_data.visible_text import make_visible

__all__ = ["Outcome", "QualityCheck", "QualityReport", "StoreQuality", "check_session", "check_store"]

# What a report says of where the data came from, by the attribute of the store that holds it.
_PROVENANCE = (
    "simulated", "simulation_seed", "simulation_version", "source", "source_size_bytes", "source_modified",
    "source_digest", "converter_version", "schema_version",
)  # fmt: skip
_SIGNIFICANT_DIGITS = 7


@dataclass(frozen=True, eq=False)
class QualityReport:
    """Every check of one session, and the numbers behind them.

    Attributes
    ----------
    session, alias : str
        The session's full name, and the short one.
    digest : str
        SHA-256 of the published content: what the report is about.
    provenance : mapping of str to object
        Where the data came from, as the store says.
    checks : tuple of QualityCheck
        In the order in which they are best read.
    tiers, lengths, stimuli, channels : tuple of rows
        See :mod:`sensorium_data.quality.summary`.
    responses : ResponseSummary
        All published responses together.
    neurons : pandas.DataFrame
        A row a neuron: its position, responses and reliability; see
        :func:`sensorium_data.quality.summary.summarize_neurons`.
    samples : tuple of StimulusSample
        A few frames of each class of stimulus; left out of JSON.
    """

    session: str
    alias: str
    digest: str
    provenance: Mapping[str, Any]
    checks: tuple[QualityCheck, ...]
    tiers: tuple[TierSummary, ...]
    lengths: tuple[ModalityLengths, ...]
    stimuli: tuple[StimulusSummary, ...]
    channels: tuple[ChannelSummary, ...]
    responses: ResponseSummary
    neurons: pd.DataFrame = field(repr=False)
    samples: tuple[StimulusSample, ...] = field(repr=False)

    def _repr_html_(self) -> str:
        simulated = "simulated " if self.is_simulated else ""
        caption = f"Quality of the {simulated}session {self.alias}: {'passed' if self.passed else 'failed'}"
        table = self.to_table()
        return write_html_table(caption, list(table.columns), table.itertuples(index=False))

    @property
    def is_simulated(self) -> bool:
        """Whether the session says that it is simulated, and no recording."""
        return bool(self.provenance.get("simulated", False))

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[QualityCheck, ...]:
        """The checks that failed."""
        return self.checks_with(Outcome.FAILED)

    @property
    def n_trials(self) -> int:
        """Trials in the store."""
        return sum(row.n_trials for row in self.tiers)

    def checks_with(self, outcome: Outcome) -> tuple[QualityCheck, ...]:
        """Return the checks that came to ``outcome``."""
        return tuple(check for check in self.checks if check.outcome is outcome)

    def to_table(self) -> pd.DataFrame:
        """Return a row a check, failed ones first: columns check, outcome, found, expected, sentence."""
        columns = ["check", "outcome", "found", "expected", "sentence"]
        ordered = [check for outcome in Outcome for check in self.checks_with(outcome)]
        rows = [asdict(check) | {"outcome": check.outcome.value} for check in ordered]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as plain values, numbers to seven digits and NaN as None."""
        rows = {name: [asdict(row) for row in getattr(self, name)] for name in ("tiers", "lengths", "stimuli")}
        plain: dict[str, Any] = _to_plain(
            {
                "session": self.session,
                "alias": self.alias,
                "digest": self.digest,
                "simulated": self.is_simulated,
                "provenance": dict(self.provenance),
                "passed": self.passed,
                "checks": [asdict(check) for check in self.checks],
                **rows,
                "channels": [asdict(row) for row in self.channels],
                "responses": asdict(self.responses),
                "neurons": {str(name): column.tolist() for name, column in self.neurons.items()},
            }
        )
        return plain

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, eq=False)
class StoreQuality:
    """The quality of several sessions of a store, side by side.

    Attributes
    ----------
    store : str
        Path or URL of its root.
    sessions : tuple of QualityReport
        Theirs.
    leakage : pandas.DataFrame or None
        Movies in a scored tier of one session and in a tier that another is trained on, a row each: columns
        movie_group, scored_session, scored_tier, trained_session, trained_tier, n_scored_trials and n_trained_trials.
        None where nobody looked.
    """

    store: str
    sessions: tuple[QualityReport, ...]
    leakage: pd.DataFrame | None = None

    @property
    def passed(self) -> bool:
        """Whether no check of any session failed."""
        return all(session.passed for session in self.sessions)

    def to_table(self) -> pd.DataFrame:
        """Return the sessions side by side, a row each, those with failed checks first.

        Returns
        -------
        pandas.DataFrame
            Columns session, failed, noted, passed (checks), trials, published_trials, neurons, dead_neurons,
            active_share, reliability, signal_to_noise (medians over neurons), withheld and broken (trials).
        """
        rows = []
        for report in sorted(self.sessions, key=lambda report: -len(report.failed)):
            outcomes = Counter(check.outcome for check in report.checks)
            published = [row.n_published for row in report.tiers if row.n_published is not None]
            rows.append(
                {
                    "session": report.alias,
                    "failed": outcomes[Outcome.FAILED],
                    "noted": outcomes[Outcome.NOTED],
                    "passed": outcomes[Outcome.PASSED],
                    "trials": report.n_trials,
                    "published_trials": sum(published) if published else None,
                    "neurons": report.responses.n_neurons,
                    "dead_neurons": report.responses.n_dead,
                    "active_share": report.responses.active_share,
                    "reliability": report.responses.reliability_median,
                    "signal_to_noise": report.responses.signal_to_noise_median,
                    "withheld": sum(row.n_withheld for row in report.tiers),
                    "broken": sum(row.n_broken for row in report.tiers),
                }
            )
        columns = ["session", "failed", "noted", "passed", "trials", "published_trials", "neurons", "dead_neurons",
                   "active_share", "reliability", "signal_to_noise", "withheld", "broken"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns).astype({"published_trials": "Int64"})

    def _repr_html_(self) -> str:
        table = self.to_table().drop(columns=["published_trials"])
        heads = [str(name).replace("_", " ") for name in table.columns]
        return write_html_table(f"Quality of {self.store}", heads, table.itertuples(index=False)) + write_html_lines(
            [self.describe()]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as plain values."""
        plain: dict[str, Any] = _to_plain(
            {
                "store": self.store,
                "passed": self.passed,
                "sessions": [report.to_dict() for report in self.sessions],
                "leakage": None if self.leakage is None else self.leakage.to_dict(orient="records"),
            }
        )
        return plain

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_markdown(self, *, verdict: str | None = None) -> str:
        """Return a summary in Markdown: the verdict, what failed, and the sessions side by side.

        Parameters
        ----------
        verdict : str, optional
            The verdict; by default, :meth:`describe`.
        """
        lines = [f"**{self.describe() if verdict is None else verdict}**", ""]
        lines += [
            make_visible(
                f"- **{report.alias}, {check.check}**: found {check.found}; expected {check.expected}. {check.sentence}"
            )
            for report in self.sessions
            for check in report.failed
        ]
        if len(lines) > 2:
            lines.append("")
        lines += [
            "| Session | Failed | Noted | Passed | Trials | Neurons | Dead | Reliability, median |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in self.to_table().to_dict(orient="records"):
            reliability = "" if math.isnan(row["reliability"]) else f"{row['reliability']:z.3f}"
            lines.append(
                f"| {row['session']} | {row['failed']} | {row['noted']} | {row['passed']} | {row['trials']} "
                f"| {row['neurons']} | {row['dead_neurons']} | {reliability} |"
            )
        if self.leakage is not None:
            lines += ["", f"Movies scored in one session and trained on in another: {len(self.leakage)}."]
        return "\n".join(lines)

    def describe(self) -> str:
        """Return the verdict in one sentence."""
        n_failed = sum(len(report.failed) for report in self.sessions)
        n_wrong = sum(not report.passed for report in self.sessions)
        n = len(self.sessions)
        everywhere = count_things(n, "session")
        simulated = [report.alias for report in self.sessions if report.is_simulated]
        remark = f" (simulated, no recordings: {', '.join(simulated)})" if simulated else ""
        if not n_failed:
            return f"No check failed in {everywhere}{remark}"
        return f"{n_failed} check{'s' * (n_failed != 1)} failed in {n_wrong} of {everywhere}{remark}"


def check_session(
    store: StoreLike, session: str, *, jobs: int = 4, progress: Progress = ignore_progress
) -> QualityReport:
    """Check a session of a store, and describe what is in it.

    Reads every published response and every video once, a few trials at a time. The outcome does not depend on
    ``jobs``.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    jobs : int
        Trials read at once; each needs about 50 MB at 8,000 neurons.
    progress : Progress
        Told after each trial.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    """
    found = find_session(session)
    opened = open_store(store)
    dataset = opened[found]
    scan = scan_session(dataset, f"check {found.alias}", jobs=jobs, progress=progress)
    channels = summarize_channels(dataset)
    statistics = opened.statistics(found)
    coverages = read_coverage(statistics, int(dataset.n_frames.values.max(initial=0)))
    return QualityReport(
        session=found.name,
        alias=found.alias,
        digest=opened.digest(found),
        provenance={name: dataset.attrs[name] for name in _PROVENANCE if name in dataset.attrs},
        checks=check_recording(dataset, found, scan, channels, coverages, statistics),
        tiers=summarize_tiers(dataset, found),
        lengths=summarize_lengths(dataset, scan),
        stimuli=summarize_stimuli(dataset, scan),
        channels=channels,
        responses=summarize_responses(scan),
        neurons=summarize_neurons(dataset, scan),
        samples=scan.samples,
    )


def check_store(
    store: StoreLike, *, leakage: pd.DataFrame | None = None, jobs: int = 4, progress: Progress = ignore_progress
) -> StoreQuality:
    """Check every session of a store, one after the other.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    leakage : pandas.DataFrame, optional
        Movies shared between sessions, to be shown beside; see :class:`StoreQuality`.
    jobs, progress
        As of :func:`check_session`.

    Raises
    ------
    StoreError
        If the store or a session in it cannot be opened.
    """
    opened = open_store(store)
    reports = [check_session(opened, session.name, jobs=jobs, progress=progress) for session in opened.require_all()]
    return StoreQuality(opened.url, tuple(reports), leakage)


def _to_plain(value: Any) -> Any:
    """Return what JSON can say of a value; seven digits tell any two float32 numbers apart that matter here."""
    match value:
        case dict():
            return {str(key): _to_plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_plain(item) for item in value]
        case float():
            return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
        case bool() | int() | None:
            return value
        case str():
            # A plain one, where it is the member of an enumeration.
            return str(value)
        case _ if hasattr(value, "item"):
            return _to_plain(value.item())
        case _:
            return str(value)
