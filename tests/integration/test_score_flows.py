"""The flows that score and compare, on Prefect's embedded server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prefect.client.orchestration import get_client

from fixtures.predicted_sessions import PredictedSessions
from sensorium_data.scoring import Bootstrap, compare_predictions, score_predictions

pytestmark = [pytest.mark.flows, pytest.mark.usefixtures("empty_prefect_server")]


def read_table(key: str) -> list[dict[str, object]]:
    with get_client(sync_client=True) as client:
        (found,) = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    table: list[dict[str, object]] = json.loads(found.data) if isinstance(found.data, str) else found.data
    return table


def test_flows_find_what_the_plain_functions_find_and_publish_it(tmp_path: Path) -> None:
    from flows.evaluate import leaderboard, score
    from flows.reporting.artifacts import read_tables

    recorded = PredictedSessions(tmp_path)
    noisy = {a: p + 20 * np.random.default_rng(0).random(p.shape) for a, p in recorded.predictions.items()}
    good = recorded.write("good", tiers=("oracle",))
    other = recorded.write("noisy", predictions=noisy, tiers=("oracle",))
    how = Bootstrap(200, 3)

    table = score(good, recorded.store, frames="51-299", resamples=200, seed=3)
    assert table.to_json() == score_predictions(good, recorded.store, frames="51-299", bootstrap=how).to_json()
    assert len(read_table("scores")) == len(table.to_frame())

    # The next scores on the same frames say what has changed; those on other frames are not compared.
    score(other, recorded.store, frames="51-299", resamples=200, seed=3)
    (last,) = read_tables("scores")
    assert f"changes are since `{good}`" in last.description
    changes = last.rows["single_trial_correlation_change"].to_numpy(float)
    noisy_scores = score_predictions(other, recorded.store, frames="51-299", bootstrap=how).to_frame()
    expected = noisy_scores["single_trial_correlation"] - table.to_frame()["single_trial_correlation"]
    np.testing.assert_allclose(changes, expected, atol=1e-6)
    assert (changes < 0).all()
    score(good, recorded.store, resamples=200, seed=3)
    assert "single_trial_correlation_change" not in read_tables("scores")[0].rows

    board = leaderboard([other, good], recorded.store, resamples=200, seed=3)
    assert board.to_json() == compare_predictions([other, good], recorded.store, bootstrap=how).to_json()
    assert {row["entry"] for row in read_table("leaderboard")} == {"good", "noisy"}
