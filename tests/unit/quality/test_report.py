from __future__ import annotations

import base64
import dataclasses
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fixtures.command_line import run_command
from flows.quality import require_writable_report
from sensorium_data.errors import UsageError
from sensorium_data.ingest import convert_session
from sensorium_data.quality import REPORT_FILE, StoreQuality, check_store, write_report
from sensorium_data.quality.quality import Outcome
from sensorium_data.quality.report import render_report
from sensorium_data.testing.recordings import make_recording

TIERS = ["train"] * 2 + ["oracle"] * 3 + ["final_test_bonus"]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page's tables, text, links and pictures; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self._hidden = 0
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def table(self, *columns: str) -> list[dict[str, str]]:
        """Return the rows of the first table that has these columns."""
        for table in self.tables:
            names = [" ".join(cell.split()) for cell in table[0]]
            if set(columns) <= set(names):
                return [dict(zip(names, (" ".join(cell.split()) for cell in row), strict=True)) for row in table[1:]]
        raise AssertionError(f"no table with {columns}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for alias, wrong in (("F", False), ("A", True)):
        recording = make_recording(alias, TIERS, n_frames={5: 240, **dict.fromkeys(range(5), 300)}, n_padded=302,
                                   movies=dict.fromkeys((2, 3, 4), 9), n_neurons=30)  # fmt: skip
        if wrong:
            recording.trials[1].behavior[0, 3] = np.nan
        recording.write(folder / "archives")
        convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return folder / "store"


@pytest.fixture(scope="module")
def quality(store: Path) -> StoreQuality:
    return check_store(str(store))


@pytest.fixture(scope="module")
def page(quality: StoreQuality) -> Page:
    return Page(render_report(quality))


def test_page_refers_to_nothing_outside(quality: StoreQuality) -> None:
    text = render_report(quality)
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    ids = {attributes["id"] for _, attributes in Page(text).attributes if "id" in attributes}
    for tag, attributes in Page(text).attributes:
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/png;base64,"), tag
        if "href" in attributes:
            assert (attributes["href"] or "")[0] == "#"
            assert (attributes["href"] or "")[1:] in ids


def test_every_picture_is_described(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert len(pictures) > 10
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    frames = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert all("frame" in (attributes["alt"] or "") for attributes in frames)


def test_one_is_in_the_singular(page: Page) -> None:
    assert "1 movie, 3 trials" in page.text
    assert not re.search(r"\b1 (movies|trials|neurons|frames|values|checks|sessions)\b", page.text)


def test_frames_are_the_recorded_ones(page: Page, quality: StoreQuality) -> None:
    frames = [attributes["src"] or "" for tag, attributes in page.attributes if tag == "img"]
    assert len(frames) == sum(len(sample.frames) for report in quality.sessions for sample in report.samples)
    data = base64.b64decode(frames[0].partition(",")[2])
    assert struct.unpack(">II", data[16:24]) == (64, 36)
    import io

    from matplotlib.image import imread

    shown = imread(io.BytesIO(data), format="png")[..., 0] * 255
    np.testing.assert_allclose(shown, quality.sessions[0].samples[0].pixels[0], atol=1.01)


def test_verdict_and_what_failed_stand_at_the_top(page: Page) -> None:
    assert page.headings[0] == "2 sessions side by side"
    assert page.headings[1] == "What failed"
    before = page.text[: page.text.index("Overview\n")]
    assert "1 check failed in 1 of 2 sessions" in before
    assert "missing values in behavior" in page.text


def test_tables_hold_the_numbers_of_the_report(page: Page, quality: StoreQuality) -> None:
    (failing, other) = quality.to_table().to_dict(orient="records")
    rows = page.table("Session", "Checks", "Trials", "Neurons")
    assert [row["Session"] for row in rows] == ["A", "F"]
    assert rows[0]["Checks"] == "✕ 1 failed"
    assert rows[1]["Checks"] == "✓ none failed"
    for row, expected in zip(rows, (failing, other), strict=True):
        assert int(row["Trials"]) == expected["trials"]
        assert int(row["Published"]) == expected["published_trials"]
        assert int(row["Noted"]) == expected["noted"]
        assert float(row["Reliability"].replace("−", "-")) == pytest.approx(expected["reliability"], rel=0.006)
    report = quality.sessions[0]
    tiers = page.table("Tier", "Published")
    assert [int(row["Trials"]) for row in tiers] == [row.n_trials for row in report.tiers]
    assert tiers[1]["Repeats of each movie"] == "3"
    lengths = page.table("Modality", "Earlier")
    assert [int(row["End with the video"]) for row in lengths] == [row.n_equal for row in report.lengths]
    channels = page.table("Channel", "99 %")
    assert [float(row["99 %"]) for row in channels] == pytest.approx(
        [row.percentile_99 for row in report.channels], rel=0.006
    )
    stimuli = page.table("Class", "Known")
    assert [row["Class"] for row in stimuli] == [row.stimulus for row in report.stimuli]
    checks = page.table("Check", "Outcome", "Found")
    assert [row["Found"] for row in checks] == report.to_table().found.tolist()
    assert checks[0]["Outcome"] == "✕ failed"


def test_checks_side_by_side_name_the_outcome_in_words(page: Page) -> None:
    rows = page.table("Check", "A", "F")
    assert rows[0] == {"Check": "missing values in behavior", "A": "✕failed", "F": "✓passed"}
    assert {"Check": "trials in train", "A": "○noted", "F": "○noted"} in rows


def test_leaked_movies_are_listed(quality: StoreQuality) -> None:
    leakage = pd.DataFrame(
        [
            {
                "movie_group": "29515-10-12:7", "scored_session": "F", "scored_tier": "live_test_main",
                "trained_session": "A", "trained_tier": "oracle", "n_scored_trials": 9, "n_trained_trials": 10,
            }
        ]
    )  # fmt: skip
    page = Page(render_report(dataclasses.replace(quality, leakage=leakage)))
    (row,) = page.table("Movie group", "Scored session", "Trained trials")
    assert (row["Movie group"], row["Scored tier"], row["Trained trials"]) == ("29515-10-12:7", "live test main", "10")
    empty = Page(render_report(dataclasses.replace(quality, leakage=leakage.iloc[:0])))
    assert "No movie is scored in one session and trained on in another." in empty.text
    assert "Movies shared between sessions" not in Page(render_report(quality)).text


def test_text_from_a_store_is_no_markup(quality: StoreQuality) -> None:
    name = '<img src="x" onerror="alert(1)">\x1b\n\u202e'
    text = render_report(dataclasses.replace(quality, store=name))
    assert '<img src="x' not in text
    assert r"&lt;img src=&#34;x&#34; onerror=&#34;alert(1)&#34;&gt;\u001b\n\u202e" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_a_session_without_responses_has_a_report(tmp_path: Path) -> None:
    recording = make_recording("F", ["live_test_main"], n_frames=300, n_padded=302)
    recording.write(tmp_path / "archives")
    convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "archives"))
    page = Page(render_report(check_store(str(tmp_path / "store"))))
    assert page.headings[0] == "Session F"
    assert not re.search(r"(?<!--)\bnan\b", page.text), "but for the option --nan"
    assert page.table("Modality", "Earlier")[1]["Shortest"] == "–"


def test_same_store_gives_the_same_page(store: Path, quality: StoreQuality, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", quality)
    write_report(tmp_path / "again.html", check_store(str(store), jobs=1))
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "again.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "report.html"]


def test_a_write_that_fails_leaves_the_old_report(
    quality: StoreQuality, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_report(path, quality)
    old = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        write_report(path, quality)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_an_unwritable_path_is_refused_before_anything_is_read(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "report.html", tmp_path / "no" / "such" / "report.html"):
        run_command(capsys, "inspect", tmp_path / "no store", "--report", path).assert_refused("cannot be written")
    REPORT_FILE.require_writable(tmp_path / "new folder" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("archive.zip", b"PK", ("archive.zip", "found .zip, expected .html or .htm; name it archive.html")),
        ("ledger", None, ("found none, expected .html or .htm",)),
        ("page.html", b"<!doctype html><title>Mine</title>", ("another file lies where the quality report is",)),
        ("page.html", b"<!doctype html><title>Quality of my notes</title>", ("another file lies where the quality",)),
        ("empty.htm", b"", ("another file lies where", "choose another name")),
    ],
)
def test_nothing_but_an_earlier_report_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    run_command(capsys, "inspect", tmp_path / "no store", "--report", path).assert_refused(*words)
    assert (path.read_bytes() if path.exists() else None) == content
    with pytest.raises(UsageError, match=r"the quality report needs another ending|another file lies where"):
        require_writable_report(str(path))


def test_an_earlier_report_is_replaced(quality: StoreQuality, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.HTML"
    for _ in range(2):
        REPORT_FILE.require_writable(path)
        write_report(path, quality)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.HTML"]
    edited = path.read_bytes().replace(b"</body>", b"<p>my notes</p></body>", 1)
    path.write_bytes(edited)
    with pytest.raises(UsageError, match="another file lies where the quality report is to be written"):
        write_report(path, quality)
    assert path.read_bytes() == edited


def test_command_writes_the_report_and_exits_with_1_if_a_check_failed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = run_command(capsys, "inspect", store, "--report", tmp_path / "both.html")
    assert both.status == 1
    assert "1 check failed in 1 of 2 sessions" in both.out
    assert "both.html: written" in " ".join(both.err.split())
    one = run_command(capsys, "inspect", store, "F", "--report", tmp_path / "one.html", "--json")
    assert one.status == 0
    assert Page((tmp_path / "one.html").read_text(encoding="utf-8")).headings[0] == "Session F"
    assert run_command(capsys, "inspect", store).status == 0


def test_nothing_of_the_report_is_loaded_before_it_is_made() -> None:
    code = "import sys, sensorium_data.quality.report; print(*{'jinja2', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_outcomes_are_told_by_a_sign_and_a_word(page: Page) -> None:
    for sign, outcome in zip("✕○✓", Outcome, strict=True):
        assert f"{sign} {outcome}" in page.text
