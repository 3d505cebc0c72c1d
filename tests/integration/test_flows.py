"""The flows on Prefect's embedded server: what they leave, and that a rerun leaves it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from fixtures.command_line import run_command
from sensorium_data.errors import SensoriumError
from sensorium_data.sessions import find_session

pytestmark = pytest.mark.flows

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


def artifact_keys() -> set[str]:
    with get_client(sync_client=True) as client:
        return {artifact.key for artifact in client.read_artifacts() if artifact.key}


def contents(root: Path) -> dict[str, int]:
    """Every file below ``root`` with the time it was written."""
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in sorted(root.rglob("*")) if p.is_file()}


def test_pipeline_end_to_end_and_again(archives: Path, tmp_path: Path) -> None:
    from flows.pipeline import pipeline

    arguments = {
        "sessions": ["D", "F"],
        "store": str(tmp_path / "store"),
        "out": str(tmp_path / "out"),
        "preset": "factorized3d-debug",
        "source": str(archives),
        "runs": str(tmp_path / "runs"),
        "overrides": {"max_epochs": "1"},
        "truth": str(archives / "truth"),
    }
    first = pipeline(**arguments)
    assert [report.status for report in first.ingested] == ["converted", "converted"]
    assert first.trained.status == "trained"
    names = {Path(file.path).name for submission in first.submissions for file in submission.files}
    assert names == {"submission_main.zip", "submission_bonus_live.zip", "submission_bonus_final.zip"}
    keys = {"ingest", "quality", "quality-f", "leakage", "training-factorized3d-debug", "scores"}
    assert keys <= artifact_keys()
    keys = {"submission-checks-main", "progress-convert-d", "progress-convert-f", "progress-train", "progress-score"}
    assert keys <= artifact_keys()

    before = contents(tmp_path)
    second = pipeline(**arguments)
    assert [report.status for report in second.ingested] == ["already done", "already done"]
    assert second.trained.status == "already done"
    assert [submission.status for submission in second.submissions] == ["already done", "already done"]
    assert contents(tmp_path) == before


def test_progress_told_by_threads_belongs_to_the_task_that_started_them() -> None:
    from flows.run_logging import run_progress

    @task(cache_policy=NO_CACHE)
    def step(name: str) -> str:
        progress = run_progress()

        def work(part: str) -> None:
            for n_done in range(4):
                progress(f"{name} {part}", n_done, 3, n_bytes=1000 * n_done)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, ["left", "right"]))
        return str(TaskRunContext.get().task_run.id)

    @flow
    def two_steps() -> dict[str, str]:
        beside = step.submit("one")
        return {"two": step("two"), "one": beside.result()}

    runs = two_steps()
    with get_client(sync_client=True) as client:
        found = {
            a.key: a for a in client.read_artifacts() if a.key and a.key.startswith(("progress-one", "progress-two"))
        }
    assert set(found) == {f"progress-{name}-{part}" for name in ("one", "two") for part in ("left", "right")}
    for key, artifact in found.items():
        assert artifact.type == "progress"
        assert artifact.data == 100
        assert "3 of 3" in artifact.description
        assert str(artifact.task_run_id) == runs[key.split("-")[1]]


def test_one_failing_session_does_not_keep_the_others(
    archives: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flows.ingest import ingest

    # G is not among the archives.
    with pytest.raises(SensoriumError, match=find_session("G").name):
        ingest(["F", "G"], str(tmp_path / "store"), str(archives))
    assert (tmp_path / "store" / find_session("F").name / "zarr.json").exists()
    assert "Traceback" not in caplog.text


def test_commands_run_their_flow_where_a_server_is_configured(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    done = run_command(capsys, "ingest", "F", "--store", tmp_path / "store", "--source", archives, "--json")
    assert done.status == 0
    assert json.loads(done.out)[0]["status"] == "converted"
    with get_client(sync_client=True) as client:
        assert "ingest" in {client.read_flow(run.flow_id).name for run in client.read_flow_runs()}

    refused = run_command(capsys, "ingest", "F", "--store", tmp_path / "other", "--source", tmp_path / "nowhere")
    assert refused.status == 2
    assert "Traceback" not in refused.err
    assert refused.err.splitlines()[-1].startswith("sensorium: ")
    assert "nowhere" in refused.err.splitlines()[-1]


def test_every_deployment_is_accepted(tmp_path: Path) -> None:
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_HOME": str(tmp_path)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for pool in ("cpu", "gpu"):
        subprocess.run(
            [*prefect, "work-pool", "create", pool, "--type", "process"], env=environment, cwd=CHECKOUT, check=True
        )
    deployed = subprocess.run(
        [*prefect, "deploy", "--all"], env=environment, cwd=CHECKOUT, check=False, capture_output=True, text=True
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    with get_client(sync_client=True) as client:
        deployments = {deployment.name: deployment for deployment in client.read_deployments()}
    assert set(deployments) == {"ingest", "train", "evaluate", "submit", "pipeline"}
    # Nothing starts by itself on a machine that only tries the project out.
    assert [schedule.active for schedule in deployments["ingest"].schedules] == [False]
    parameters = deployments["pipeline"].parameter_openapi_schema["properties"]
    assert all("description" in parameter for parameter in parameters.values())


def test_ingest_leaves_the_quality_report(archives: Path, tmp_path: Path) -> None:
    from flows.ingest import ingest

    page = tmp_path / "reports" / "quality.html"
    ingest(["F"], str(tmp_path / "store"), str(archives), quality_report=str(page))
    assert "No check failed in 1 session" in page.read_text(encoding="utf-8")
    with get_client(sync_client=True) as client:
        summaries = [artifact.data for artifact in client.read_artifacts() if artifact.key == "quality"]
    assert any("No check failed in 1 session" in text and str(page) in text for text in summaries)
