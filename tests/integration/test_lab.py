"""A server, its workers and the deployments, in processes of their own, used over the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import Lab, run_lab

pytestmark = pytest.mark.flows

DEPLOYMENTS = {"ingest/ingest", "quality/quality", "train/train", "evaluate/evaluate", "submit/submit"}
DEPLOYMENTS |= {"pipeline/pipeline"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with run_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def contents(root: Path) -> dict[str, int]:
    """Every file below ``root`` with the time it was written."""
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in sorted(root.rglob("*")) if p.is_file()}


def pipeline_parameters(archives: Path, folder: Path) -> dict[str, Any]:
    """Parameters of a pipeline that takes seconds."""
    small = {"max_epochs": 1, "n_windows_per_trial": 1, "model.channels": "2,2"}
    return {
        "sessions": ["F"],
        "store": str(folder / "store"),
        "out": str(folder / "out"),
        "preset": "factorized3d-debug",
        "source": str(archives),
        "runs": str(folder / "runs"),
        "overrides": {name: str(value) for name, value in small.items()},
        "truth": str(archives / "truth"),
    }


def test_deploy_may_be_repeated_and_leaves_switches_alone(lab: Lab, tmp_path: Path) -> None:
    ingest = lab.client.read_deployment_by_name("ingest/ingest")
    (schedule,) = lab.client.read_deployment_schedules(ingest.id)
    assert not schedule.active
    lab.client.update_deployment_schedule(ingest.id, schedule.id, active=True)
    rows = lab.deploy("--store", tmp_path / "store", "--source", "s3://lab/archives")
    assert {row["name"] for row in rows if row["kind"] == "deployment"} == DEPLOYMENTS
    assert {row["status"] for row in rows if row["kind"] == "deployment"} == {"updated"}
    assert {row["status"] for row in rows if row["kind"] != "deployment"} == {"already there"}
    assert [row["name"] for row in rows if row["kind"] == "work pool"] == ["cpu", "gpu"]
    ingest = lab.client.read_deployment_by_name("ingest/ingest")
    assert ingest.parameters["store"] == str(tmp_path / "store")
    assert ingest.parameters["source"] == ["s3://lab/archives"]
    assert ingest.parameters["sessions"] == ["new"]
    (schedule,) = lab.client.read_deployment_schedules(ingest.id)
    assert schedule.active
    lab.client.update_deployment_schedule(ingest.id, schedule.id, active=False)


def test_forms_have_descriptions_and_bounds(lab: Lab) -> None:
    for name in DEPLOYMENTS:
        deployment = lab.client.read_deployment_by_name(name)
        assert deployment.description
        assert "sensorium" in deployment.tags
        assert deployment.enforce_parameter_schema
        properties = (deployment.parameter_openapi_schema or {})["properties"]
        assert all(one.get("description") for one in properties.values()), name
        assert set(deployment.parameters) <= set(properties)


def test_pipeline_over_the_api_and_again(lab: Lab, archives: Path, tmp_path: Path) -> None:
    parameters = pipeline_parameters(archives, tmp_path)
    lab.finish("pipeline/pipeline", **parameters)
    (run,) = (tmp_path / "runs").iterdir()
    assert (tmp_path / "store").is_dir()
    zips = {path.name for path in (tmp_path / "out").rglob("*.zip")}
    assert zips == {"submission_main.zip", "submission_bonus_live.zip", "submission_bonus_final.zip"}
    assert {"ingest", "quality", "scores", "submission-checks-main", f"run-{run.name[:-9]}"} <= lab.artifact_keys()
    before = contents(tmp_path)
    lab.finish("pipeline/pipeline", **parameters)
    assert contents(tmp_path) == before
