"""``sensorium deploy --file``: the deployments for containers, on a server of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fixtures.lab import Lab
from fixtures.places import CHECKOUT
from flows.lab.automations import FAILURES_AUTOMATION, LOST_RUNS_AUTOMATION, WEBHOOK_BLOCK

pytestmark = [pytest.mark.flows, pytest.mark.slow]

KUBERNETES = CHECKOUT / "deploy" / "prefect.kubernetes.yaml"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server on which nothing is deployed yet."""
    from prefect.client.orchestration import SyncPrefectClient

    from flows.lab import run_server

    folder = tmp_path_factory.mktemp("lab")
    with run_server(folder, 0) as server, SyncPrefectClient(f"{server.url}/api") as client:
        yield Lab(server, client)


@pytest.fixture(scope="module")
def planned(lab: Lab) -> list[dict[str, str]]:
    """What a dry run said before anything was deployed."""
    return lab.deploy("--file", KUBERNETES, "--dry-run", "--notify", "https://hooks.lab/secret")


def test_a_dry_run_names_all_that_would_be_made_and_makes_nothing(lab: Lab, planned: list[dict[str, str]]) -> None:
    rows = [(row["kind"], row["name"], row["before"], row["after"]) for row in planned if row["kind"] != "deployment"]
    assert rows == [
        ("work pool", "cpu", "", "kubernetes"),
        ("work pool", "gpu", "", "kubernetes"),
        ("concurrency limit", "gpu", "", "1 at a time"),
        ("automation", LOST_RUNS_AUTOMATION, "", "90 s"),
        ("webhook", WEBHOOK_BLOCK, "", "hooks.lab"),
        ("automation", FAILURES_AUTOMATION, "", "hooks.lab"),
    ]
    assert {row["name"] for row in planned if row["after"] == "new"} >= {"ingest/ingest", "train/train"}
    assert lab.client.read_work_pools() == []
    assert lab.client.read_global_concurrency_limits() == []
    assert lab.client.read_automations() == []


@pytest.fixture(scope="module")
def rows(lab: Lab, planned: list[dict[str, str]]) -> list[dict[str, str]]:
    """What deploying for Kubernetes said."""
    return lab.deploy("--file", KUBERNETES, "--runs", "s3://lab/runs")


def test_pools_of_the_type_are_made(lab: Lab, rows: list[dict[str, str]]) -> None:
    assert [(row["name"], row["detail"]) for row in rows if row["kind"] == "work pool"] == [
        ("cpu", "kubernetes"),
        ("gpu", "kubernetes"),
    ]
    template = json.loads((CHECKOUT / "deploy" / "kubernetes-job.json").read_text())
    for name in ("cpu", "gpu"):
        pool = lab.client.read_work_pool(name)
        assert pool.type == "kubernetes"
        assert pool.base_job_template["job_configuration"] == template["job_configuration"]


@pytest.mark.usefixtures("rows")
def test_the_deployments_run_in_the_image(lab: Lab) -> None:
    train = lab.client.read_deployment_by_name("train/train")
    assert train.work_pool_name == "gpu"
    assert train.job_variables["gpus"] == 1
    assert train.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "/opt/sensorium"}}]
    assert (train.entrypoint, train.parameters["store"], train.parameters["runs"]) == (
        "flows/train.py:train",
        "/data/store",
        "s3://lab/runs",
    )


@pytest.mark.usefixtures("rows")
def test_deploying_again_changes_nothing(lab: Lab) -> None:
    assert lab.deploy("--file", KUBERNETES, "--dry-run") == []


@pytest.mark.usefixtures("rows")
def test_a_webhook_that_changes_is_named_by_its_host(lab: Lab) -> None:
    def notify(url: str, *options: str) -> list[tuple[str, ...]]:
        rows = lab.deploy("--file", KUBERNETES, "--notify", url, *options)
        names = (WEBHOOK_BLOCK, FAILURES_AUTOMATION)
        return [tuple(row[key] for key in row if key != "name") for row in rows if row["name"] in names]

    made = notify("https://hooks.lab/secret")
    assert made == [("webhook", "made", "hooks.lab"), ("automation", "made", "posts to hooks.lab")]
    assert notify("https://hooks.lab/secret", "--dry-run") == []
    assert notify("https://hooks.lab/other", "--dry-run") == [("webhook", "url", "hooks.lab", "hooks.lab, another URL")]
    assert notify("https://else.where/other", "--dry-run") == [("webhook", "url", "hooks.lab", "else.where")]
    updated = notify("https://else.where/other")
    assert updated == [("webhook", "updated", "else.where"), ("automation", "already there", "posts to else.where")]


@pytest.mark.usefixtures("rows")
def test_pools_of_another_type_are_refused(lab: Lab) -> None:
    done = lab.run_command("deploy", "--file", CHECKOUT / "deploy" / "prefect.docker.yaml")
    assert done.returncode == 2
    assert "the work pool cpu is of another type: found kubernetes, expected docker; delete it" in done.stderr
    assert lab.client.read_deployment_by_name("train/train").job_variables["gpus"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("a: [", "does not describe deployments"),
        ("name: x\n", "found no deployments"),
        ("deployments: [{}]\ndefinitions: {pools: {base_job_template: nowhere.json}}\n", "definitions.pools"),
        ("deployments: [{}]\ndefinitions: {pools: {type: docker, base_job_template: LICENSE}}\n", "definitions.pools"),
    ],
)
def test_a_file_that_describes_nothing_is_told(content: str | None, said: str, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    if content is not None:
        path.write_text(content)
    done = lab.run_command("deploy", "--file", path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert str(path) in done.stderr


@pytest.mark.usefixtures("rows")
def test_docker_pools_are_made_too(lab: Lab, tmp_path: Path) -> None:
    from flows.lab.deployment import _read_bases

    text = (CHECKOUT / "deploy" / "prefect.docker.yaml").read_text()
    described = yaml.safe_load(text.replace("name: cpu", "name: containers").replace("name: gpu", "name: gpus"))
    described["deployments"] = described["deployments"][1:3]
    (tmp_path / "deployments.yaml").write_text(yaml.safe_dump(described))
    rows = lab.deploy("--file", tmp_path / "deployments.yaml")
    assert ("containers", "docker") in [(row["name"], row["detail"]) for row in rows]
    assert lab.client.read_deployment_by_name("quality/quality").job_variables["auto_remove"] is True
    # What is known of the deployments that this file does not describe stays known.
    assert set(_read_bases(lab.client)) >= {"ingest/ingest", "pipeline/pipeline", "quality/quality"}
