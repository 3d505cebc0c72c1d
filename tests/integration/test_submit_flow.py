"""What the flow of a submission leaves in Prefect's database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from fixtures.submissions import Predicted

pytestmark = [pytest.mark.flows, pytest.mark.usefixtures("empty_prefect_server")]


def read_artifacts() -> dict[str, list[Any]]:
    with get_client(sync_client=True) as client:
        artifacts: dict[str, list[Any]] = {}
        for artifact in client.read_artifacts():
            artifacts.setdefault(str(artifact.key), []).append(artifact)
        return artifacts


def test_artifacts_hold_checks_sizes_digests_links_scores_and_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.submit import submit

    monkeypatch.setenv("SENSORIUM_LINKS", f"{tmp_path}=https://files.lab/")
    predicted = Predicted(tmp_path)
    other = predicted.write("other", first=17)
    reports = submit([predicted.path, other], predicted.store, str(tmp_path / "out"), weights=[1, 3])
    assert [report.status for report in reports] == ["written", "written"]
    artifacts = read_artifacts()
    for report in reports:
        (files,) = artifacts[f"submission-files-{report.track}"]
        rows = json.loads(files.data)
        assert [row["sha256"] for row in rows] == [file.sha256 for file in report.files]
        assert [row["bytes"] for row in rows] == [file.size_bytes for file in report.files]
        (checks,) = artifacts[f"submission-checks-{report.track}"]
        assert all(row["passed"] for row in json.loads(checks.data))
        (card,) = artifacts[f"submission-card-{report.track}"]
        assert card.data == Path(report.card).read_text()
        for file in report.files:
            (link,) = artifacts[Path(file.path).stem.replace("_", "-")]
            assert link.data == f"`{file.path}` ([open](https://files.lab/out/{Path(file.path).name}))"
    assert not [one for of_key in artifacts.values() for one in of_key if "file://" in str(one.data)]
    # Each member by itself: the old session's tiers and the oracle tier of all sessions have responses.
    scores = artifacts["scores"]
    assert len(scores) == 2
    for table in scores:
        # The page shows these without moving the table.
        first = ["alias", "tier", "stimulus", "n_trials", "single_trial_correlation", "correlation_to_average"]
        columns = list(json.loads(table.data)[0])
        assert columns[: len(first)] == first
        assert columns[-1] == "session"
        scored = {(row["session"], row["tier"]) for row in json.loads(table.data) if row.get("session")}
        assert {tier for _, tier in scored} >= {"oracle", "live_test_main"}
        assert "not scored:" in table.description
