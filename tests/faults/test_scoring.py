"""Scoring on the workers of a Dask cluster, also when one of them is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.clusters import run_cluster
from fixtures.predicted_sessions import PredictedSessions
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.scoring import Bootstrap, score_predictions

HOW = Bootstrap(200, 3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("recorded"))


def test_a_cluster_finds_the_same_scores_though_a_worker_is_killed(recorded: PredictedSessions, tmp_path: Path) -> None:
    predictions = recorded.write("p", tiers=("oracle", "live_test_main"))
    here = score_predictions(predictions, recorded.store, bootstrap=HOW)
    told: list[tuple[str, int, int]] = []
    with run_cluster(tmp_path) as cluster:
        there = score_predictions(
            predictions, recorded.store, bootstrap=HOW, dask=cluster.address, progress=lambda *now: told.append(now)
        )
        assert there.to_json() == here.to_json()
        assert told == [("score sessions", 1, 2), ("score sessions", 2, 2)]
        cluster.workers[0].kill()
        there = score_predictions(predictions, recorded.store, bootstrap=HOW, dask=cluster.address)
        assert there.to_json() == here.to_json()
        # What is wrong is said in the same words.
        lacking = recorded.write("lacking", aliases="F", tiers=("oracle",))
        for dask in (None, cluster.address):
            with pytest.raises(PredictionsError, match=r"tiers that were not predicted"):
                score_predictions(lacking, recorded.store, tiers=["live_test_main"], dask=dask)


def test_a_cluster_that_is_not_there_is_told(recorded: PredictedSessions) -> None:
    predictions = recorded.write("q", tiers=("oracle",))
    with pytest.raises(UsageError, match=r"no Dask scheduler answers here.*dask scheduler"):
        score_predictions(predictions, recorded.store, dask="not an address")
