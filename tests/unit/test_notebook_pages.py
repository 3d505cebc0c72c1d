"""What notebooks show of the objects that users hold: short tables, in which no text from outside becomes markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.training import TrainingReport
from sensorium_data.errors import StoreError
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.ingest import IngestReport, convert_session
from sensorium_data.movies.leakage import LeakageReport, MovieLeak
from sensorium_data.quality import check_store
from sensorium_data.scoring import SCORES, Leaderboard, score_predictions
from sensorium_data.sessions import Track
from sensorium_data.store import open_store
from sensorium_data.store.verification import VerificationReport
from sensorium_data.submission.findings import Check, ValidationReport, Violation
from sensorium_data.submission.write import SubmissionFile, SubmissionReport
from sensorium_data.testing.recordings import make_recording

HOSTILE = "<script>alert(1)</script>\n&\x1b[2J"
SHOWN = "<script>alert(1)</script>\\n&\\u001b[2J"
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}


class Page(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert all(value == "text-align:right" for _, value in attrs)
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(shown: Any) -> Page:
    page = Page(shown._repr_html_())
    assert set(page.tags) <= TAGS
    return page


def test_a_table_writes_numbers_and_escapes_text() -> None:
    page = Page(
        write_html_table(HOSTILE, [HOSTILE], [[HOSTILE], [1234567], [np.float32(0.5)], [np.nan], [None], [True]])
    )
    assert set(page.tags) <= TAGS
    assert page.texts == [SHOWN, SHOWN, SHOWN, "1,234,567", "0.5", "True"]
    assert Page(write_html_lines([HOSTILE])).texts == [SHOWN]


def test_a_table_stays_short_and_keeps_secrets() -> None:
    page = write_html_table("rows", ["n"], ([i] for i in range(10_000)))
    assert page.count("<tr>") == 201
    assert "9,800 more rows" in page
    assert "secret" not in write_html_table("https://user:secret@host/store", ["x" * 10_000], [])
    assert len(write_html_table("", ["x" * 10_000], [])) < 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pages")
    recording = make_recording(
        "F", ["train", "oracle", "oracle", "live_test_main"], n_frames=300, n_padded=302, movies={1: 1, 2: 1}
    )
    recording.write(folder / "archives")
    convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return str(folder / "store")


def test_a_store_lists_its_sessions(store: str) -> None:
    page = read(open_store(store))
    dataset = open_store(store)["F"]
    assert page.texts[0] == f"Store {store}"
    row = ["F", dataset.attrs["session"], "no", str(dataset.sizes["trial"]), str(dataset.sizes["neuron"])]
    assert page.texts[-5:] == row


def test_a_damaged_session_does_not_keep_a_store_from_being_shown(store: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(store, tmp_path / "store")
    opened = open_store(str(tmp_path / "store"))
    (tmp_path / "store" / opened.sessions[0].name / "zarr.json").write_text("{")
    assert "damaged" in "".join(read(open_store(str(tmp_path / "store"))).texts)


def test_a_quality_report_lists_its_checks(store: str) -> None:
    quality = check_store(store)
    (report,) = quality.sessions
    page = read(report)
    assert page.tags.count("tr") == len(report.checks) + 1
    assert {check.check for check in report.checks} <= set(page.texts)
    assert quality.describe() in read(quality).texts
    hostile = replace(report, checks=(replace(report.checks[0], found=HOSTILE),), alias=HOSTILE)
    assert SHOWN in read(hostile).texts


def test_reports_say_what_they_found_and_escape_it() -> None:
    leak = MovieLeak(HOSTILE, HOSTILE, "oracle", "B", "train", 2, 3)
    leaks = read(LeakageReport(("A", "B"), (leak,)))
    assert leaks.texts[-5:] == [SHOWN, "oracle", "B", "train", "1"]
    found = read(VerificationReport("F", "ledger", 3, 100, (HOSTILE,), "convert it again"))
    assert found.texts[0].endswith("failed")
    assert SHOWN in found.texts
    assert read(VerificationReport("F", "ledger", 3, 100, (), "")).texts[0].endswith("passed")
    validation = read(
        ValidationReport((Check(HOSTILE, "columns", False, "wrong"),), (Violation("a", "b", HOSTILE),), (HOSTILE,))
    )
    assert validation.texts.count(SHOWN) == 3
    assert "failed" in validation.texts
    ingested = read(IngestReport((), (StoreError("lost", path=HOSTILE),)))
    assert any("lost" in text for text in ingested.texts)


def test_scores_are_shown_with_their_intervals(demo_scores: Any) -> None:
    table = demo_scores
    page = read(table)
    row = table.summary.iloc[0]
    score, low, high = (row[f"single_trial_correlation{part}"] for part in ("", "_low", "_high"))
    interval = f" ({low:z.3f} to {high:z.3f})" if np.isfinite([low, high]).all() else ""
    assert f"{score:z.3f}{interval}" in page.texts
    hostile = replace(table, notes=(HOSTILE,), predictions=HOSTILE)
    assert SHOWN in read(hostile).texts
    empty = replace(table, summary=pd.DataFrame(columns=table.summary.columns))
    assert "table" in read(empty).tags


@pytest.fixture(scope="module")
def demo_scores(store: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from sensorium_data.predictions import from_arrays

    dataset = open_store(store)["F"]
    random = np.random.default_rng(0)
    arrays = {
        int(trial): random.uniform(0, 1, (dataset.sizes["neuron"], int(n_frames))).astype(np.float32)
        for trial, n_frames in zip(dataset.trial.values, dataset.n_frames.values, strict=True)
        if dataset.tier.sel(trial=trial) == "oracle"
    }
    out = str(tmp_path_factory.mktemp("predictions") / "predictions")
    from_arrays(out, store, {"F": arrays}, response_units="raw")
    return score_predictions(out, store)


def test_what_was_submitted_and_trained_is_a_table() -> None:
    checks = (Check("a.zip", "size", True, "3 bytes"),)
    report = SubmissionReport(
        Track.MAIN,
        "official",
        "float32",
        HOSTILE,
        (SubmissionFile(path=HOSTILE, size_bytes=2_500_000, sha256="", members=(HOSTILE, "b"), n_rows=3),),
        ValidationReport(checks, (), ()),
        (HOSTILE,),
        "card.md",
    )
    page = read(report)
    assert page.texts == [
        f"Submission, track main, frames official: {SHOWN}",
        *("zip", "size (MB)", "holds", SHOWN, "2.5", f"{SHOWN}, b"),
        *("passed 1 checks", "model card: card.md", SHOWN),
    ]
    trained = TrainingReport(HOSTILE, "trained", (), 12, 3, 0.25, 90.0, notes=(HOSTILE,))
    assert read(trained).texts[-7:] == [SHOWN, "trained", "12", "3", "0.25", "1.5", SHOWN]


def test_entries_that_were_compared_are_a_table() -> None:
    score = dict.fromkeys(SCORES, 0.5)
    common = {"tier": HOSTILE, "stimulus": "all", "rank": 1, "entry": HOSTILE, **score}
    rows = [{"aggregation": aggregation, **common} for aggregation in ("mean over neurons", "F")]
    board = Leaderboard(rows=pd.DataFrame(rows), entries={}, references={}, reference="best")
    page = read(board)
    # Sessions one by one are for programs.
    assert page.texts.count("mean over neurons") == 1
    assert "F" not in page.texts
    assert page.texts.count(SHOWN) == 2
