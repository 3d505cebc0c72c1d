"""The page of a pipeline's result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows.reporting import pipeline_result
from flows.reporting.pipeline_result import Recipe, publish_result
from models.training import TrainingReport
from sensorium_data.scoring.withheld import describe_withheld
from sensorium_data.sessions import SESSIONS, Tier

WITHHELD = (Tier.LIVE_TEST_MAIN, Tier.LIVE_TEST_BONUS, Tier.FINAL_TEST_MAIN, Tier.FINAL_TEST_BONUS)
# About 800 pixels at the page's size of letters.
WIDEST = 100


def row(alias: str, tier: str) -> dict[str, Any]:
    scores = {
        f"{name}{end}": value
        for name in ("single_trial_correlation", "correlation_to_average")
        for end, value in (("", -0.123), ("_low", -0.234), ("_high", 0.012))
    }
    shares = {f"fraction_of_{name}": 0.5 for name in ("ceiling", "oracle", "attainable")}
    return {"alias": alias, "tier": tier, "stimulus": "all", "n_trials": 1234, **scores, **shares}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    """The page for all ten sessions, of five of which the test tiers are withheld."""
    published: list[str] = []
    monkeypatch.setattr(pipeline_result, "publish_markdown", lambda key, text, *_, **__: published.append(text))
    monkeypatch.setattr(pipeline_result, "report", lambda send: send())
    monkeypatch.setattr(pipeline_result, "find_checks", lambda store: [])
    sessions = sorted(SESSIONS.values())
    scores = SimpleNamespace(
        to_frame=lambda: pd.DataFrame([row(session.alias, "final_test_bonus") for session in sessions]),
        unscored=tuple(describe_withheld(session, tier, 60, 60) for session in sessions[5:] for tier in WITHHELD),
        doubts=(),
        simulated=(),
        bootstrap=SimpleNamespace(confidence=0.95),
    )
    files = [
        SimpleNamespace(path=f"/data/out/{name}", size_bytes=123_456_789, n_rows=1_234_567, sha256="0" * 64)
        for name in ("submission_bonus_final.zip", "submission_bonus_live.zip")
    ]
    submission: Any = SimpleNamespace(
        track="bonus",
        files=files,
        notes=(),
        card="/data/out/submission_bonus.md",
        validation=SimpleNamespace(violations=(), warnings=(), checks=(1, 2)),
    )
    publish_result(
        store="/data/store",
        predictions="/data/out/predictions",
        recipe=Recipe("factorized3d", {"max_epochs": 3, "model.channels": (8, 16), "n_trials": None}),
        ingested=[SimpleNamespace(alias="F", store_size_bytes=1)],  # type: ignore[list-item]
        trained=TrainingReport("/data/runs/a-1", "trained", ("F",), 3, 2, 0.1875, 4000.0),
        scores=scores,  # type: ignore[arg-type]
        submissions=[submission],
    )
    (text,) = published
    return text


def test_the_recipe_is_there(page: str) -> None:
    _, _, rest = page.partition("### Recipe\n\n")
    assert rest.splitlines()[:6] == [
        "- preset: `factorized3d`",
        "- settings that differ from it: `max_epochs=3`, `model.channels=8,16`, `n_trials=none`",
        "- epochs trained: 3",
        "- best epoch: 2",
        "- validation correlation: 0.188",
        "- duration of the training: 1 h 6 min",
    ]


def test_withheld_tiers_take_one_line(page: str) -> None:
    assert [line for line in page.splitlines() if "not scored" in line] == [
        "- not scored: responses withheld, only the competition's server can score them: F, G, H, I, J live_test_main, "
        "live_test_bonus, final_test_main, final_test_bonus"
    ]


def test_tables_are_as_wide_as_the_page(page: str) -> None:
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
        widest = [max(map(len, column)) for column in zip(*cells, strict=True)]
        assert sum(widest) + 3 * len(widest) <= WIDEST, block[0]


def test_each_zip_has_its_digest(page: str) -> None:
    assert f"- submission_bonus_final.zip: `{'0' * 64}`" in page
