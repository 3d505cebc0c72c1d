"""The open benchmark: the old mice's public test tiers, scored as the competition's server scored the new ones'.

The responses of the old sessions' test tiers are published, so anybody can score them. That is also why a score here is
no competition result: nothing keeps an entry from having been trained on them, and the new sessions show many of the
same movies. What an entry is known to have been trained on stands beside its scores.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from sensorium_data.commands import quote_command
from sensorium_data.errors import PredictionsError, StoreError, UsageError
from sensorium_data.frames import FramesProfile, parse_frames_profile
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.predictions import predicted_sessions, predictions_attributes
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.redaction import hide_secrets
from sensorium_data.scoring.bootstrap import Bootstrap
from sensorium_data.scoring.leaks import TierLeak, TrainingData, find_tier_leaks, read_training_data
from sensorium_data.scoring.scoring import choose_tiers, score_predictions
from sensorium_data.scoring.table import ScoreTable, frame_to_records
from sensorium_data.scoring.trials import NEURONS_NOTE
from sensorium_data.sessions import Release, Session, Tier, find_session
from sensorium_data.store import Store, StoreLike, open_store

__all__ = ["TIERS", "BenchmarkEntry", "BenchmarkReport", "BenchmarkSession", "benchmark_sessions", "run_benchmark"]

#: The tiers of the benchmark, in the catalogue's order.
TIERS: tuple[Tier, ...] = tuple(tier for tier in Tier if tier.is_test)

_PACKAGES = ("sensorium-pipeline", "numpy", "zarr", "xarray")


@dataclass(frozen=True)
class BenchmarkSession:
    """A scored session: its name, the digest of its content, and whether its attributes say that it is simulated."""

    name: str
    alias: str
    digest: str
    simulated: bool


@dataclass(frozen=True, eq=False)
class BenchmarkEntry:
    """One entry's scores and what is known of its training.

    Attributes
    ----------
    name : str
        What it is called on the page.
    predictions : str
        Path or URL of its predictions store.
    content_digest : str
        Over its predicted values.
    runs : tuple of str
        Digests of the runs that predicted it.
    table : ScoreTable
        Its scores.
    trained : TrainingData
        What it was trained on.
    leaks : tuple of TierLeak
        Of every scored session and tier.
    unknown : tuple of str
        What cannot be told of its leaks, one clause each.
    unscored : tuple of str
        What has no score, and why.
    """

    name: str
    predictions: str
    content_digest: str
    runs: tuple[str, ...]
    table: ScoreTable
    trained: TrainingData
    leaks: tuple[TierLeak, ...]
    unknown: tuple[str, ...]
    unscored: tuple[str, ...]

    def count_leaks(self, tier: str) -> tuple[int, int]:
        """Return how many of a tier's movies and trials leak, over the sessions."""
        of_tier = [leak for leak in self.leaks if leak.tier == tier]
        return sum(leak.n_leaked_movies for leak in of_tier), sum(leak.n_leaked_trials for leak in of_tier)

    def warnings(self) -> list[str]:
        """Return what to know before the scores are compared, one sentence each."""
        lines = []
        for tier in TIERS:
            of_tier = [leak for leak in self.leaks if leak.tier == tier]
            n_movies, n_trials = self.count_leaks(tier)
            if n_trials:
                sources = sorted({alias for leak in of_tier for alias in leak.trained_sessions})
                n_all = [sum(leak.n_movies for leak in of_tier), sum(leak.n_trials for leak in of_tier)]
                lines.append(
                    f"{self.name}, {tier}: it was trained on {n_movies} of {n_all[0]} movies, which {n_trials} of "
                    f"{n_all[1]} trials show, in session {', '.join(sources)}"
                )
        if self.unknown:
            lines.append(f"{self.name}: whether it has seen what scores it is not known: {'; '.join(self.unknown)}")
        return lines + [f"{self.name}: doubtful: {doubt}" for doubt in self.table.doubts]


@dataclass(frozen=True, eq=False)
class BenchmarkReport:
    """Entries scored on the old mice. Made by :func:`run_benchmark`.

    Attributes
    ----------
    entries : tuple of BenchmarkEntry
        In the order in which they were named.
    store : str
        Root of the session stores.
    sessions : tuple of BenchmarkSession
        The old sessions in the store.
    frames : str
        The frames profile.
    bootstrap : Bootstrap
        How the intervals were made.
    command : str
        What made the report; empty if it was no command.
    software : mapping of str to str
        Versions.
    """

    entries: tuple[BenchmarkEntry, ...]
    store: str
    sessions: tuple[BenchmarkSession, ...]
    frames: FramesProfile
    bootstrap: Bootstrap
    command: str = ""
    software: Mapping[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        rows = [
            (entry.name, row.tier, row.n_trials, row.single_trial_correlation, row.correlation_to_average)
            for entry in self.entries
            for row in entry.table.summary.itertuples()
            if row.aggregation == "mean over neurons" and row.stimulus == "all"
        ]
        heads = ("entry", "tier", "trials", "single trial correlation", "correlation to average")
        caption = f"Old sessions of {self.store}, frames {self.frames}"
        return write_html_table(caption, heads, rows) + write_html_lines(self.warnings())

    @property
    def is_simulated(self) -> bool:
        """Whether a scored session says that it is simulated."""
        return any(session.simulated for session in self.sessions)

    def warnings(self) -> list[str]:
        """Return what to know before the scores are compared, one sentence each."""
        lines = [line for entry in self.entries for line in entry.warnings()]
        scored = {entry.name: sorted(set(entry.table.rows["alias"])) for entry in self.entries}
        if len(set(map(tuple, scored.values()))) > 1:
            which = "; ".join(f"{name} on {', '.join(aliases) or 'none'}" for name, aliases in scored.items())
            lines.append(f"the entries are scored on different sessions: {which}")
        neurons: dict[str, set[tuple[int, ...]]] = {}
        for entry in self.entries:
            lines.extend(f"{entry.name}: {note}" for note in entry.table.notes if note.endswith(NEURONS_NOTE))
            for (session, _, _), frame in entry.table.neuron_scores.items():
                neurons.setdefault(session, set()).add(tuple(frame.index.tolist()))
        different = [find_session(session).alias for session, chosen in neurons.items() if len(chosen) > 1]
        if different:
            lines.append(f"the entries are scored on different neurons of session {', '.join(different)}")
        if self.is_simulated:
            lines.append("the sessions are simulated: scores on them say nothing about real data")
        return lines

    def to_json(self) -> str:
        """Return everything but the scores of single neurons as JSON; what is not known is ``null``."""
        document: dict[str, Any] = {
            "kind": "benchmark",
            "store": hide_secrets(self.store),
            "sessions": [asdict(session) for session in self.sessions],
            "frames": self.frames,
            "n_resamples": self.bootstrap.n_resamples,
            "seed": self.bootstrap.seed,
            "confidence": self.bootstrap.confidence,
            "command": self.command,
            "software": dict(self.software),
            "warnings": self.warnings(),
            "entries": [
                {
                    "name": entry.name,
                    "predictions": hide_secrets(entry.predictions),
                    "content_digest": entry.content_digest,
                    "runs": list(entry.runs),
                    "trained_on": asdict(entry.trained),
                    "leaks": [asdict(leak) for leak in entry.leaks],
                    "leaks_unknown": list(entry.unknown),
                    "scores": {
                        "sessions": frame_to_records(entry.table.rows),
                        "summary": frame_to_records(entry.table.summary),
                        "by_depth": frame_to_records(entry.table.by_depth()),
                    },
                    "unscored": list(entry.unscored),
                }
                for entry in self.entries
            ],
        }
        return json.dumps(document, indent=2, allow_nan=False)


def benchmark_sessions(store: StoreLike) -> tuple[Session, ...]:
    """Return the old sessions of a store, in catalogue order.

    Raises
    ------
    StoreError
        If there is no store, or no old session in it.
    """
    opened = open_store(store)
    old = tuple(session for session in opened if session.release is Release.OLD)
    if not old:
        raise StoreError(
            "the benchmark scores the old sessions, and the store has none",
            path=opened.url,
            found=", ".join(session.alias for session in opened) or "no session",
            expected="some of A to E",
            remedy=f"{quote_command('ingest', 'old', '--store', opened.url)} ingests the published ones",
        )
    return old


def run_benchmark(
    entries: Mapping[str, str],
    store: StoreLike,
    *,
    runs: Iterable[str] = (),
    frames: FramesProfile = "official",
    bootstrap: Bootstrap | None = None,
    jobs: int = 2,
    command: str = "",
    progress: Progress = ignore_progress,
) -> BenchmarkReport:
    """Score predictions on the old sessions' test tiers, and look for movies that they were trained on.

    Parameters
    ----------
    entries : mapping of str to str
        Each entry's predictions store, by the name to show it under.
    store : Store or path
        The session stores.
    runs : iterable of str
        Training runs, or folders of them, which say what an entry was trained on.
    frames, bootstrap, jobs
        As of :func:`sensorium_data.scoring.score_predictions`.
    command : str
        What to quote as the command that made the report.
    progress : Progress
        Told after each trial of each entry.

    Raises
    ------
    PredictionsError
        If an entry has no old session or no test tier, or does not fit the recording.
    StoreError
        If there is no store, or no old session in it.
    UsageError
        If there is no entry.
    """
    if not entries:
        raise UsageError("no entry named", expected="predictions or runs", remedy="name at least one")
    profile, how, opened = parse_frames_profile(frames), bootstrap or Bootstrap(), open_store(store)
    old = benchmark_sessions(opened)
    folders = tuple(runs)
    scored = tuple(
        _score_entry(name, path, opened, old, folders, profile, how, jobs, progress) for name, path in entries.items()
    )
    return BenchmarkReport(
        entries=scored,
        store=opened.url,
        sessions=tuple(
            BenchmarkSession(s.name, s.alias, opened.digest(s), bool(opened[s].attrs.get("simulated"))) for s in old
        ),
        frames=profile,
        bootstrap=how,
        command=hide_secrets(command),
        software={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def _score_entry(
    name: str,
    path: str,
    store: Store,
    old: tuple[Session, ...],
    folders: tuple[str, ...],
    frames: FramesProfile,
    how: Bootstrap,
    jobs: int,
    progress: Progress,
) -> BenchmarkEntry:
    predicted = predicted_sessions(path)
    sessions = [session for session in old if session in predicted]
    tiers = [tier for tier in choose_tiers(path, None) if tier in TIERS]
    if not sessions or not tiers:
        lacks = "old session of the store" if not sessions else "test tier"
        raise PredictionsError(
            f"the entry predicts no {lacks}",
            path=path,
            found=", ".join(s.alias for s in predicted) if not sessions else ", ".join(choose_tiers(path, None)),
            expected=", ".join(s.alias for s in old) if not sessions else ", ".join(TIERS),
            remedy="predict these with a run that knows them, or leave the entry out",
        )

    def show(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:
        progress(f"{label} {name}", n_done, n_total, n_bytes=n_bytes)

    table = score_predictions(
        path,
        store,
        frames=frames,
        tiers=tiers,
        sessions=[session.name for session in sessions],
        bootstrap=how,
        jobs=jobs,
        progress=show,
    )
    found: dict[Session, list[Tier]] = {session: [] for session in sessions}
    for key in table.trials:
        if key[2] == "all":
            found[find_session(key[0])].append(Tier(key[1]))
    trained = read_training_data(path, folders)
    leaks, unknown = find_tier_leaks(store, trained, found)
    absent = [f"session {session}: it was not predicted" for session in old if session not in predicted]
    absent += [f"{tier}: it was not predicted" for tier in TIERS if tier not in tiers]
    attributes = predictions_attributes(path)
    return BenchmarkEntry(
        name=name,
        predictions=path,
        content_digest=str(attributes.get("content_digest", "")),
        runs=tuple(attributes["runs"]),
        table=table,
        trained=trained,
        leaks=leaks,
        unknown=unknown,
        unscored=(*absent, *table.unscored),
    )
