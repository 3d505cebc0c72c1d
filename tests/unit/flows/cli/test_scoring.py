"""`sensorium score` and `sensorium leaderboard` as a user runs them, on hand-made stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from fixtures.command_line import Outcome, run_command
from fixtures.predicted_sessions import PredictedSessions

Command = Callable[..., Outcome]


@pytest.fixture
def sensorium(capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    made = PredictedSessions(tmp_path_factory.mktemp("commands"))
    rng = np.random.default_rng(0)
    noisy = {a: (p + 20 * rng.random(p.shape)).astype(np.float32) for a, p in made.predictions.items()}
    made.write("good", tiers=("oracle", "live_test_main"))
    made.write("noisy", predictions=noisy, tiers=("oracle", "live_test_main"))
    made.write("oracle-alone", tiers=("oracle",))
    made.write("withheld", aliases="F", tiers=("live_test_main",))
    return made


def test_score_prints_intervals_and_ceilings_and_says_what_is_withheld(
    sensorium: Command, recorded: PredictedSessions
) -> None:
    outcome = sensorium("score", recorded.root / "good", "--store", recorded.store)
    assert outcome.status == 0
    for words in ("oracle", "95%", "attainable", "mean over neurons", "mean over mice", "frames official"):
        assert words in outcome.out
    assert "not scored: session F" in outcome.err
    assert "withheld" in outcome.err


def test_score_writes_all_its_forms(sensorium: Command, recorded: PredictedSessions, tmp_path: Path) -> None:
    parquet, picture = tmp_path / "new" / "neurons.parquet", tmp_path / "scores.png"
    arguments = ["--store", recorded.store, "--truth", recorded.root / "truth", "--frames", "51-299", "--json"]
    options = ["--parquet", parquet, "--picture", picture, "--resamples", 200, "--seed", 7]
    for _ in range(2):  # What an earlier call wrote is replaced.
        outcome = sensorium("score", recorded.root / "good", *arguments, *options)
        assert outcome.status == 0
    document = json.loads(outcome.out)
    assert (document["frames"], document["n_resamples"], document["seed"]) == ("51-299", 200, 7)
    assert {row["tier"] for row in document["sessions"]} == {"oracle", "live_test_main"}
    assert len(pd.read_parquet(parquet)) == sum(row["n_neurons"] for row in document["sessions"])
    assert imread(picture).shape[1] > 1000


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_score_says_that_nothing_was_scored(
    sensorium: Command, recorded: PredictedSessions, options: list[str]
) -> None:
    outcome = sensorium("score", recorded.root / "withheld", "--store", recorded.store, *options)
    outcome.assert_refused("withheld: nothing was scored: found session F", "only the competition's", "such as oracle")
    assert outcome.out == ""


def test_score_takes_tiers(sensorium: Command, recorded: PredictedSessions) -> None:
    outcome = sensorium("score", recorded.root / "good", "--store", recorded.store, "--tier", "oracle", "--json")
    assert {row["tier"] for row in json.loads(outcome.out)["sessions"]} == {"oracle"}
    sensorium("score", recorded.root / "oracle-alone", "--store", recorded.store, "--tier", "train").assert_refused(
        "oracle-alone", "found train, expected oracle", "or predict these into another store"
    )
    sensorium("score", recorded.root / "good", "--store", recorded.store, "--tier", "oracl").assert_refused(
        "did you mean oracle"
    )


def test_output_that_cannot_be_written_is_found_before_the_work(
    sensorium: Command, recorded: PredictedSessions, tmp_path: Path
) -> None:
    outcome = sensorium("score", recorded.root / "good", "--store", recorded.store, "--picture", tmp_path)
    outcome.assert_refused(str(tmp_path), "folder")
    sensorium("score", recorded.root / "good", "--store", recorded.store, "--resamples", 5).assert_refused(
        "100 to 20,000"
    )


@pytest.mark.parametrize(
    ("option", "name", "content", "words"),
    [
        ("--parquet", "submission.zip", b"PK", "found .zip, expected .parquet; name it submission.parquet"),
        ("--parquet", "scores.parquet", b"\x89PNG\r\n\x1a\n", "another file lies where the Parquet file of scores is"),
        ("--picture", "ledger.json", b"{}", "found .json, expected .png; name it ledger.png"),
        ("--picture", "mine.png", b"GIF89a", "another file lies where the picture of scores is"),
        ("--picture", "mine.png", b"\x89PNG\r\n\x1a\n" + b"0" * 9000, "another file lies where the picture of scores"),
        ("--parquet", "mine.parquet", b"PAR1" + b"0" * 9000 + b"PAR1", "another file lies where the Parquet file of"),
    ],
)
def test_nothing_but_earlier_scores_is_replaced(
    sensorium: Command,
    recorded: PredictedSessions,
    tmp_path: Path,
    option: str,
    name: str,
    content: bytes,
    words: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    sensorium("score", "no predictions", "--store", recorded.store, option, path).assert_refused(str(path), words)
    assert path.read_bytes() == content


def test_scores_are_not_written_into_predictions_and_replace_only_scores(
    sensorium: Command, recorded: PredictedSessions, tmp_path: Path
) -> None:
    words = ["score", recorded.root / "good", "--store", recorded.store, "--tier", "oracle", "--resamples", 100]
    inside = recorded.root / "good" / "scores.parquet"
    sensorium(*words, "--parquet", inside).assert_refused("cannot be written into a stored session, predictions")
    assert not inside.exists()
    table, picture, there = tmp_path / "scores.parquet", tmp_path / "scores.png", tmp_path / "kept.parquet"
    table.symlink_to(there)
    for _ in range(2):
        assert sensorium(*words, "--parquet", table, "--picture", picture).status == 0
    # A link is followed, and stays.
    assert table.is_symlink()
    assert pd.read_parquet(there)["neuron"].size > 0
    written = pq.read_table(there)
    shown = picture.read_bytes()
    for mine in (
        pa.table({"mine": ["sensorium_scores_of_neurons"]}),
        written.append_column("mine", pa.nulls(len(written))),
        written.slice(1),
    ):
        pq.write_table(mine, there)
        sensorium(*words, "--parquet", table).assert_refused("another file lies where the Parquet file of scores is")
        assert pq.read_table(there).equals(mine)
    for changed in (shown[:-1], shown + b"mine", shown.replace(b"IDAT", b"IDAX", 1)):
        picture.write_bytes(changed)
        sensorium(*words, "--picture", picture).assert_refused("another file lies where the picture of scores is")
        assert picture.read_bytes() == changed


def test_leaderboard_shows_the_best_first_with_its_lead(sensorium: Command, recorded: PredictedSessions) -> None:
    entries = [recorded.root / "noisy", recorded.root / "good"]
    outcome = sensorium("leaderboard", *entries, "--store", recorded.store)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    # On a terminal of 80 columns the entries stand below what is averaged over.
    first = next(number for number, line in enumerate(lines) if "mean over mice" in line)
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["good", "noisy"]
    assert "oracle: 2 sessions, 10 trials" in outcome.out
    document = json.loads(sensorium("leaderboard", *entries, "--store", recorded.store, "--json").out)
    lead = next(row for row in document["rows"] if row["entry"] == "noisy" and row["aggregation"] == "mean over mice")
    assert lead["rank"] == 2
    assert lead["single_trial_correlation_difference_high"] < 0


def test_leaderboard_refuses_what_cannot_be_compared(sensorium: Command, recorded: PredictedSessions) -> None:
    good, alone = recorded.root / "good", recorded.root / "oracle-alone"
    sensorium("leaderboard", good, "--store", recorded.store).assert_refused("two or more")
    sensorium("leaderboard", good, alone, "--store", recorded.store).assert_refused(
        "oracle-alone", "lacks a tier", "live_test_main", "--tier"
    )
    assert sensorium("leaderboard", good, alone, "--store", recorded.store, "--tier", "oracle").status == 0
