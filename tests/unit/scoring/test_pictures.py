from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from fixtures.predicted_sessions import PredictedSessions
from sensorium_data.errors import UsageError
from sensorium_data.scoring import ScoreTable, draw_scores, score_predictions
from sensorium_data.scoring.pictures import _draw_distributions, choose_tier
from sensorium_data.sessions import find_session


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    return PredictedSessions(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def scored(recorded: PredictedSessions) -> ScoreTable:
    """The scores of predictions ``p``."""
    return score_predictions(recorded.write("p"), recorded.store)


def test_picture_is_drawn_whole(recorded: PredictedSessions, scored: ScoreTable, tmp_path: Path) -> None:
    table = scored
    draw_scores(table, recorded.store, tmp_path / "scores.png")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]
    picture = imread(tmp_path / "scores.png")
    assert picture.shape[1] > 1000
    assert np.unique(picture[..., :3].reshape(-1, 3), axis=0).shape[0] > 50
    # A tier without repeats, of one trial.
    draw_scores(table, recorded.store, tmp_path / "train.png", tier="train")


def test_picture_names_its_tier_and_counts_whole_neurons(
    recorded: PredictedSessions, scored: ScoreTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    table = dataclasses.replace(scored, simulated=(find_session("A").name,))
    draw_scores(table, recorded.store, tmp_path / "scores.png", tier="oracle")
    (figure,) = drawn
    assert figure.get_suptitle() == (
        "p: tier oracle, frames official\nA is simulated: the scores say nothing about recordings"
    )
    (bar,) = [axes for axes in figure.findobj(Axes) if axes.get_ylabel() == "neurons"]
    low, high = bar.get_ylim()
    labels = [label.get_text() for label in bar.get_yticklabels(which="both")]
    assert labels[0] == "1" == f"{low:.0f}"
    assert all(label.isdecimal() and 1 <= int(label) <= high for label in labels)


def test_a_mean_of_almost_zero_has_no_sign_and_is_not_struck_through() -> None:
    axes = Figure().subplots()
    frame = pd.DataFrame({"single_trial_correlation": [-0.1, 0.0999], "oracle_correlation": [np.nan, np.nan]})
    _draw_distributions(axes, {find_session("A").name: frame})
    (label,) = [text for text in axes.texts if text.get_text()]
    assert label.get_text() == "0.000"
    assert label.get_bbox_patch() is not None


def test_withheld_tier_is_drawn_with_its_truth(recorded: PredictedSessions, tmp_path: Path) -> None:
    truth = str(recorded.root / "truth")
    table = score_predictions(recorded.write("t"), recorded.store, truth=truth)
    assert choose_tier(table) == "live_test_main"
    draw_scores(table, recorded.store, tmp_path / "scores.png", truth=truth)
    assert (tmp_path / "scores.png").stat().st_size > 10_000


def test_tier_of_most_sessions_is_drawn(recorded: PredictedSessions) -> None:
    # Without truth the live tier is A's alone.
    table = score_predictions(recorded.write("o", tiers=("oracle", "live_test_main")), recorded.store)
    assert choose_tier(table) == "oracle"


def test_what_was_not_scored_cannot_be_drawn(recorded: PredictedSessions, tmp_path: Path) -> None:
    table = score_predictions(recorded.write("o2", tiers=("oracle",)), recorded.store)
    with pytest.raises(UsageError, match="not scored: found train, expected oracle"):
        draw_scores(table, recorded.store, tmp_path / "x.png", tier="train")
    nothing = score_predictions(recorded.write("n", aliases="F", tiers=("live_test_main",)), recorded.store)
    with pytest.raises(UsageError, match="nothing was scored"):
        draw_scores(nothing, recorded.store, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
