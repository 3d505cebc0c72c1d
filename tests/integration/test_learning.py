"""The debug model learns the simulation: half of what can be known, and nothing from videos out of order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.config import override
from models.inputs import open_normalizers
from models.prediction import predict, predict_trial
from models.registry import get_preset
from models.runs import load_run
from models.training import train
from sensorium_data.ingest import convert_session
from sensorium_data.scoring import score_predictions
from sensorium_data.sessions import Tier, find_session, find_sessions
from sensorium_data.simulation import simulate
from sensorium_data.windows import WindowLoader
from sensorium_data.windows.loader import TrialReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # trains until something is learned

SCORED = ["oracle", "live_test_main", "final_test_main"]
N_SKIPPED_FRAMES = 50


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with archives, a store and one trained run."""
    root = tmp_path_factory.mktemp("learning")
    sessions = find_sessions(["F", "G"])
    simulate(root / "archives", sessions=sessions, n_trials=120, n_neurons=300, seed=0)
    for session in sessions:
        convert_session(session, str(root / "store"), source=str(root / "archives"))
    config = override(get_preset("factorized3d-debug"), {"max_epochs": "5"})
    train(config, str(root / "store"), None, root / "runs")
    return root


def run_of(root: Path) -> str:
    (run,) = (root / "runs").iterdir()
    return str(run)


def test_half_of_the_ceiling_is_reached(learned: Path) -> None:
    predictions = str(learned / "predictions")
    predict([run_of(learned)], str(learned / "store"), SCORED, predictions)
    table = score_predictions(predictions, str(learned / "store"), truth=str(learned / "archives" / "truth"))
    shares = {(row.alias, row.tier): row.fraction_of_ceiling for row in table.rows.itertuples()}
    assert set(shares) == {(alias, tier) for alias in ("F", "G") for tier in SCORED}
    assert min(shares.values()) >= 0.5, shares


def test_videos_out_of_order_predict_next_to_nothing(learned: Path) -> None:
    name = find_session("F").name
    store = str(learned / "store")
    reader = TrialReader(store, [name])
    loader = WindowLoader(reader, open_normalizers("competition", store, [name]))
    run = load_run(run_of(learned))
    model = run.model()
    random = np.random.default_rng(0)

    traces: dict[str, list[np.ndarray]] = {"responses": [], "in order": [], "shuffled": []}
    for trial in loader.iter_trials(name, [Tier.ORACLE]):
        assert trial.responses is not None
        order = random.permutation(trial.videos.shape[1])
        shuffled = replace(trial, videos=np.ascontiguousarray(trial.videos[:, order]))
        traces["responses"].append(trial.responses[0][:, N_SKIPPED_FRAMES:])
        n_scored = traces["responses"][-1].shape[1]
        traces["in order"].append(predict_trial(model, trial, run.config)[:, -n_scored:])
        traces["shuffled"].append(predict_trial(model, shuffled, run.config)[:, -n_scored:])
    joined = {kind: np.concatenate(parts, axis=1) for kind, parts in traces.items()}

    def correlation(kind: str) -> float:
        pairs = zip(joined["responses"], joined[kind], strict=True)
        return float(np.mean([np.corrcoef(response, predicted)[0, 1] for response, predicted in pairs]))

    assert correlation("shuffled") < 0.25 * correlation("in order")
