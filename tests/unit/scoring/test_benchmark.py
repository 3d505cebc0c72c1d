from __future__ import annotations

import html.parser
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from fixtures.predicted_sessions import PredictedSessions
from fixtures.session_stores import TrialFacts, write_ledger, write_session_store
from sensorium_data.errors import PredictionsError, StoreError, UsageError
from sensorium_data.files import open_objects
from sensorium_data.predictions import from_arrays
from sensorium_data.predictions.writer import PredictionsWriter
from sensorium_data.scoring import BenchmarkReport, Bootstrap, run_benchmark, score_predictions, write_benchmark
from sensorium_data.scoring.benchmark_page import draw_classes, render_benchmark
from sensorium_data.scoring.leaks import TrainingData, find_tier_leaks
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import open_store

HOW = Bootstrap(100)
RUN = {"weights_sha256": "d" * 64}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def report(recorded: PredictedSessions) -> BenchmarkReport:
    entries = {"mine": recorded.write("mine"), "<b>yours</b>": recorded.write("yours", "standardized")}
    return run_benchmark(entries, recorded.store, bootstrap=HOW, command="sensorium benchmark https://me:pw@host/x")


def write_run(folder: Path, sessions: str, **config: object) -> None:
    """Write the files of a run that say what it was trained on."""
    folder.mkdir(parents=True)
    names = [{"name": find_session(alias).name, "digest": "0"} for alias in sessions]
    for name, content in {
        "model.json": RUN,
        "data.json": {"sessions": names},
        "config.json": {"tiers": ["train"], "n_folds": None} | config,
        "environment.json": {},
    }.items():
        (folder / name).write_text(json.dumps(content))


# Scores


def test_only_the_old_sessions_test_tiers_are_scored_as_score_scores_them(
    recorded: PredictedSessions, report: BenchmarkReport
) -> None:
    assert [session.alias for session in report.sessions] == ["A"]
    whole = score_predictions(recorded.write("again"), recorded.store, bootstrap=HOW).rows
    rows = report.entries[0].table.rows
    assert set(rows["alias"]) == {"A"}
    assert set(rows["tier"]) == {"live_test_main", "live_test_bonus", "final_test_bonus"}
    expected = whole[(whole["alias"] == "A") & whole["tier"].str.contains("test")]
    assert rows.reset_index(drop=True).equals(expected.reset_index(drop=True))


def test_a_notebook_shows_every_entry_and_tier_once(report: BenchmarkReport) -> None:
    page = report._repr_html_()
    assert "<b>yours</b>" not in page
    for entry in ("mine", "&lt;b&gt;yours&lt;/b&gt;"):
        assert page.count(f"<td>{entry}</td>") == 3
    mean = report.entries[0].table.summary.query("aggregation == 'mean over neurons' and tier == 'live_test_main'")
    assert f"{mean['single_trial_correlation'].iloc[0]:.4g}" in page


def test_what_is_not_scored_is_told(recorded: PredictedSessions, report: BenchmarkReport) -> None:
    unscored = report.entries[0].unscored
    assert "final_test_main: it was not predicted" in unscored
    assert any("trial 8: its stimulus is broken" in reason for reason in unscored)
    # Of an old session whose archive lacks the responses, the competition's server alone could score them.
    store = Path(recorded.root / "withheld")
    made = write_session_store(store, "A", [TrialFacts(i, "live_test_main", 60, "m") for i in range(3)], n_neurons=2)
    stored = zarr.open_group(store / made.session.name)
    stored["responses_withheld"][2] = True
    (store / made.session.name / "ledger.json").unlink()
    write_ledger(store / made.session.name)
    arrays = {i: made.responses[i, :, :60] for i in range(3)}
    from_arrays(str(store) + "-p", str(store), {"A": arrays}, response_units="standardized")
    (entry,) = run_benchmark({"p": str(store) + "-p"}, str(store), bootstrap=HOW).entries
    assert any("responses of 1 of 3 trials are withheld" in reason for reason in entry.unscored)
    assert entry.table.rows["n_trials"].tolist() == [2]


def test_a_store_without_old_sessions_is_refused(tmp_path: Path) -> None:
    made = write_session_store(tmp_path / "store", "F", [TrialFacts(0, "oracle", 60)], n_neurons=2)
    arrays = {"F": {0: made.responses[0, :, :60]}}
    from_arrays(str(tmp_path / "p"), str(tmp_path / "store"), arrays, response_units="standardized")
    with pytest.raises(
        StoreError, match=r"found F, expected some of A to E; `sensorium ingest old --store .*` ingests"
    ):
        run_benchmark({"p": str(tmp_path / "p")}, str(tmp_path / "store"))


def test_an_entry_without_old_sessions_or_test_tiers_is_refused(recorded: PredictedSessions) -> None:
    for name, alias, tier, words in (
        ("new", "F", "live_test_main", "predicts no old session of the store: found F, expected A"),
        ("oracle", "A", "oracle", "predicts no test tier: found oracle, expected live_test_main"),
    ):
        path = recorded.write(name, aliases=alias, tiers=(tier,))
        with pytest.raises(PredictionsError, match=words):
            run_benchmark({name: path}, recorded.store)
    with pytest.raises(UsageError, match="no entry named"):
        run_benchmark({}, recorded.store)


# Leaks


@pytest.fixture
def shared(tmp_path: Path) -> str:
    """A store of A and F: two of A's four test movies are among F's training movies, one among its oracle's."""
    of_a = [("m0", 2), ("m1", 3), ("m2", 1), ("own", 2)]
    trials = [
        TrialFacts(10 * i + j, "live_test_main", 60, movie) for i, (movie, n) in enumerate(of_a) for j in range(n)
    ]
    write_session_store(tmp_path, "A", [*trials, TrialFacts(90, "train", 60, "own")], n_neurons=2)
    others = [("train", "m0"), ("train", "m1"), ("oracle", "m2"), ("train", "other")]
    write_session_store(tmp_path, "F", [TrialFacts(i, t, 60, m) for i, (t, m) in enumerate(others)], n_neurons=2)
    return str(tmp_path)


def leaks_of(store: str, monkeypatch: pytest.MonkeyPatch, sessions: str, *tiers: str) -> tuple[list[int], set[str]]:
    # Movies are known by the same ids in both sessions here, without comparing videos.
    monkeypatch.setattr("sensorium_data.store.movie_ids.MovieLinks.covers", lambda self, dataset: True)
    monkeypatch.setattr(
        "sensorium_data.store.movie_ids.MovieLinks.apply",
        lambda self, dataset: dataset.assign_coords(movie_group=dataset.movie),
    )
    trained = TrainingData(tuple(find_session(alias).name for alias in sessions), tiers, ())
    (leak,), unknown = find_tier_leaks(open_store(store), trained, {find_session("A"): [Tier.LIVE_TEST_MAIN]})
    assert unknown == ()
    assert (leak.n_movies, leak.n_trials) == (4, 8)
    return [leak.n_leaked_movies, leak.n_leaked_trials], set(leak.trained_sessions)


def test_movies_trained_on_in_another_session_are_counted(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leaks_of(shared, monkeypatch, "F", "train") == ([2, 5], {"F"})
    assert leaks_of(shared, monkeypatch, "F", "train", "oracle") == ([3, 6], {"F"})
    assert leaks_of(shared, monkeypatch, "", "train") == ([0, 0], set())


def test_movies_trained_on_in_the_same_session_are_counted(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leaks_of(shared, monkeypatch, "A", "train") == ([1, 2], {"A"})
    # Who was trained on the tier itself has seen everything.
    assert leaks_of(shared, monkeypatch, "AF", "train", "live_test_main") == ([4, 8], {"A", "F"})


def test_what_cannot_be_known_is_said(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = {find_session("A"): [Tier.LIVE_TEST_MAIN]}
    trained = TrainingData((find_session("G").name,), ("train",), ())
    _, unknown = find_tier_leaks(open_store(shared), trained, scored)
    assert "it was trained on G, whose movies are not in the store" in unknown
    assert any("cannot be compared" in reason and "sensorium ingest" in reason for reason in unknown)


def test_runs_say_what_an_entry_was_trained_on(
    recorded: PredictedSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin: Callable[..., None] = PredictionsWriter.__init__
    monkeypatch.setattr(
        PredictionsWriter, "__init__", lambda self, *args, **kw: begin(self, *args, **kw | {"runs": ["d" * 64]})
    )
    path = recorded.write("of-run", tiers=("live_test_main",))

    def trained(*runs: str) -> TrainingData:
        (entry,) = run_benchmark({"p": path}, recorded.store, runs=runs, bootstrap=HOW).entries
        return entry.trained

    assert trained() == TrainingData((), (), ("run dddddddd, which predicted it, is not at hand",))
    write_run(tmp_path / "runs" / "one", "FA")
    names = tuple(find_session(alias).name for alias in "AF")
    # In a folder of runs, or by itself.
    for place in (tmp_path / "runs", tmp_path / "runs" / "one"):
        assert trained(str(place)) == TrainingData(names, ("train", "oracle"), ())
    write_run(tmp_path / "folds" / "two", "A", tiers=["train", "final_test_main"], n_folds=7)
    found = trained(str(tmp_path / "folds"))
    assert found.tiers == ("train", "final_test_main")


def test_predictions_of_another_software_may_name_the_sessions(recorded: PredictedSessions) -> None:
    session = recorded.sessions["A"]
    arrays = {f.trial: recorded.predictions["A"][i, :, : f.n_frames] for i, f in enumerate(session.trials) if f.valid}
    path = str(recorded.root / "declared")
    from_arrays(path, recorded.store, {"A": arrays}, response_units="raw", attributes={"trained_sessions": ["F"]})
    (entry,) = run_benchmark({"p": path}, recorded.store, bootstrap=HOW).entries
    assert entry.trained.sessions == (find_session("F").name,)
    assert not entry.trained.unknown


def test_an_entry_of_unknown_training_is_warned_about(report: BenchmarkReport) -> None:
    warnings = [line for line in report.warnings() if "does not say what was trained on" in line]
    assert len(warnings) == 2


# The page


class Reader(html.parser.HTMLParser):
    """The page's words, and everything it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_the_scores_and_needs_nothing_beside_it(report: BenchmarkReport) -> None:
    reader = Reader(render_benchmark(report))
    words = " ".join(reader.words)
    assert reader.loaded == []
    assert "script" not in reader.tags
    for entry in report.entries:
        row = entry.table.summary.query("tier == 'live_test_main'").iloc[0]
        assert f"{row['single_trial_correlation']:.3f}".replace("-", "−") in words
        assert entry.content_digest in words
    assert report.sessions[0].digest in words
    assert "https://…@host/x" in words
    assert "pw" not in words.split()
    # Names of entries are text, whatever they hold.
    assert "<b>yours</b>" in words
    assert "b" not in reader.tags


def test_a_chart_for_each_class_with_all_entries_on_one_axis(report: BenchmarkReport) -> None:
    charts = {(chart.tier, chart.stimulus): chart for chart in draw_classes(report)}
    assert set(charts) == {
        ("live_test_main", "all"),
        ("live_test_bonus", "NaturalImages"),
        ("final_test_bonus", "Gabor"),
        ("final_test_bonus", "RandomDots"),
    }
    assert len({chart.ticks for chart in charts.values()}) == 1
    for chart in charts.values():
        assert [dot.name for dot in chart.dots] == ["mine", "<b>yours</b>"]
        for dot in chart.dots:
            assert dot.low is None or (dot.low <= dot.x <= (dot.high or 0))
            assert 0 <= dot.x <= chart.width


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_json_beside_the_page_has_the_same_numbers(place: str, report: BenchmarkReport, tmp_path: Path) -> None:
    folder = open_objects(str(tmp_path) if place == "folder" else f"memory://{tmp_path}")
    assert write_benchmark(report, folder) == folder.locate("benchmark.html")
    assert folder.keys() == ["benchmark.html", "benchmark.json"]
    assert folder.read("benchmark.html").decode().startswith(render_benchmark(report))
    document = json.loads(folder.read("benchmark.json"))
    assert [entry["name"] for entry in document["entries"]] == ["mine", "<b>yours</b>"]
    scores = document["entries"][0]["scores"]["sessions"]
    expected = report.entries[0].table.rows["single_trial_correlation"]
    assert np.allclose([row["single_trial_correlation"] for row in scores], expected)
    assert document["frames"] == "official"
    # Once more: an earlier benchmark is replaced, and nothing else.
    write_benchmark(report, folder)
    for name in ("benchmark.html", "benchmark.json"):
        kept = folder.read(name)
        for mine in (b"mine", kept.replace(b"yours", b"other", 1), kept + b"<p>notes</p>"):
            folder.write(name, mine)
            with pytest.raises(UsageError, match=f"{name}: another file lies where the benchmark's"):
                write_benchmark(report, folder)
            assert folder.read(name) == mine
        folder.write(name, kept)
    folder.write("ledger.json", b"{}")
    with pytest.raises(UsageError, match="page cannot be written into a stored session, predictions or a run"):
        write_benchmark(report, folder)


def test_simulated_sessions_are_told(recorded: PredictedSessions, tmp_path: Path) -> None:
    made = write_session_store(tmp_path / "s", "B", [TrialFacts(0, "live_test_main", 60)], n_neurons=2)
    folder = tmp_path / "s" / made.session.name
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"]["simulated"] = True
    (folder / "zarr.json").write_text(json.dumps(metadata))
    (folder / "ledger.json").unlink()
    write_ledger(folder)
    from_arrays(
        str(tmp_path / "p"), str(tmp_path / "s"), {"B": {0: made.responses[0, :, :60]}}, response_units="standardized"
    )
    report = run_benchmark({"p": str(tmp_path / "p")}, str(tmp_path / "s"), bootstrap=HOW)
    assert any("simulated" in warning for warning in report.warnings())
    assert "Simulated recordings." in render_benchmark(report)
