"""The deployments for containers: they are those of prefect.yaml, and what they ask for exists."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values, find_placeholders

from fixtures.places import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
KINDS = ("docker", "kubernetes")
#: The schemas of Kubernetes that manifests are checked against.
VERSION = "1.30"


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """What each kind's file describes, and prefect.yaml."""
    kinds = {kind: read_yaml(DEPLOY / f"prefect.{kind}.yaml") for kind in KINDS}
    return kinds | {"process": read_yaml(CHECKOUT / "prefect.yaml")}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The base job template of the Kubernetes pools."""
    loaded: dict[str, Any] = json.loads((DEPLOY / "kubernetes-job.json").read_text())
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_the_deployments_differ_in_folders_alone(kind: str, described: dict[str, Any]) -> None:
    def without_pool(deployment: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        places = {name: f"{prefix}{one}" for name, one in deployment["parameters"].items() if name in ("store", "out")}
        pool = deployment["work_pool"]["name"]
        return {**deployment, "work_pool": pool, "parameters": deployment["parameters"] | places}

    theirs = [without_pool(one, "") for one in described[kind]["deployments"]]
    assert theirs == [without_pool(one, "/data/") for one in described["process"]["deployments"]]
    for deployment in described[kind]["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


@pytest.mark.parametrize("kind", KINDS)
def test_flows_run_where_the_image_has_them(kind: str, described: dict[str, Any]) -> None:
    (step,) = described[kind]["pull"]
    (settings,) = step.values()
    folder = settings["directory"]
    assert f"WORKDIR {folder}\n" in (CHECKOUT / "Dockerfile").read_text()
    volumes = re.findall(r'"(/\w+)"', (CHECKOUT / "Dockerfile").read_text().partition("VOLUME")[2])
    for deployment in described[kind]["deployments"]:
        assert (CHECKOUT / deployment["entrypoint"].partition(":")[0]).is_file()
        for name in ("store", "out"):
            place = deployment["parameters"].get(name, "/data/")
            assert any(place.startswith(f"{volume}/") for volume in volumes), place


@pytest.mark.parametrize("kind", KINDS)
def test_images_have_the_version_of_the_package(kind: str, described: dict[str, Any]) -> None:
    version = re.search(r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for name, end in (("cpu", "cpu"), ("gpu", "cuda")):
        pool = described[kind]["definitions"]["work_pools"][name]
        assert pool["job_variables"]["image"] == f"sensorium-pipeline:{version[1]}-{end}"
    places = [*DEPLOY.glob("*.yaml"), CHECKOUT / "Dockerfile", CHECKOUT / "docs" / "containers-and-clusters.md"]
    for path in places:
        for image in re.findall(r"sensorium-pipeline:([\d.]+)-", path.read_text()):
            assert image == version[1], path


def test_docker_pools_take_their_variables(described: dict[str, Any]) -> None:
    # Prefect's own list of what its workers take, which it ships.
    known = files("prefect") / "server/api/collections_data/views/aggregate-worker-metadata.json"
    metadata = json.loads(known.read_text())["prefect-docker"]["docker"]
    variables = metadata["default_base_job_configuration"]["variables"]
    check = jsonschema.Draft202012Validator({**variables, "additionalProperties": False})
    pools = described["docker"]["definitions"]["work_pools"]
    assert pools
    for name, pool in pools.items():
        assert [one.message for one in check.iter_errors(pool["job_variables"])] == [], name
    assert not check.is_valid({"no_such_variable": 1})


def test_kubernetes_pools_take_their_variables(described: dict[str, Any], template: dict[str, Any]) -> None:
    for pool in described["kubernetes"]["definitions"]["work_pools"].values():
        jsonschema.validate(pool["job_variables"], {**template["variables"], "additionalProperties": False})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(pool["job_variables"] | {"gpus": 0}, template["variables"])


def test_every_variable_is_used_and_documented(template: dict[str, Any]) -> None:
    used = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    assert used == set(template["variables"]["properties"])
    page = (CHECKOUT / "docs" / "containers-and-clusters.md").read_text()
    # What Prefect's workers need, and nobody sets.
    own = {"name", "command", "finished_job_ttl", "stream_output", "cluster_config"}
    own |= {"job_watch_timeout_seconds", "pod_watch_timeout_seconds"}
    assert {name for name in used if f"`{name}`" not in page} == own


def test_all_that_prefects_template_sets_can_be_set(template: dict[str, Any]) -> None:
    known = files("prefect") / "server/api/collections_data/views/aggregate-worker-metadata.json"
    theirs = json.loads(known.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    assert set(theirs["variables"]["properties"]) <= set(template["variables"]["properties"])
    assert set(theirs["job_configuration"]) == set(template["job_configuration"])


def render(template: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job that Prefect's worker makes: with defaults, and with a list of words and one of variables."""
    defaults = {name: one["default"] for name, one in template["variables"]["properties"].items() if "default" in one}
    own = {"name": "train", "command": "prefect flow-run execute", "labels": {"prefect.io/flow-name": "train"}}
    job: dict[str, Any] = apply_values(
        template["job_configuration"]["job_manifest"], defaults | own | dict(variables), remove_notset=True
    )
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = shlex.split(container["args"])
    return job


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_the_jobs_are_valid(pool: str, described: dict[str, Any], template: dict[str, Any]) -> None:
    variables = described["kubernetes"]["definitions"]["work_pools"][pool]["job_variables"]
    job = render(template, variables)
    kubernetes_validate.validate(job, VERSION, strict=True)
    pod = job["spec"]["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == {"cpu": None, "gpu": 1}[pool]
    assert pod["securityContext"]["runAsNonRoot"]
    (user,) = re.findall(r"^USER (\d+):", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user)
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == set(re.findall(r'"(/\w+)"', (CHECKOUT / "Dockerfile").read_text().partition("VOLUME")[2]))
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_jobs_take_every_variable(template: dict[str, Any]) -> None:
    everything = {
        "image": "i", "data_claim": "d", "namespace": "lab", "image_pull_secrets": [{"name": "registry"}],
        "service_account_name": "runner", "secret": "aws", "cache_size": "1Gi", "gpus": 2, "cpu_request": "2",
        "cpu_limit": "4", "memory_request": "1Gi", "memory_limit": "2Gi", "node_selector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "grace_period_s": 60, "finished_job_ttl": 10, "env": {"A": "1"}, "image_pull_policy": "Always",
    }  # fmt: skip
    jsonschema.validate(everything, template["variables"])
    job = render(template, everything)
    kubernetes_validate.validate(job, VERSION, strict=True)
    assert job["metadata"]["namespace"] == "lab"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "i"
    assert {"name": "A", "value": "1"} in container["env"]


def test_a_job_that_is_wrong_is_not_valid(template: dict[str, Any]) -> None:
    job = render(template, {"image": "i", "data_claim": "d", "env": {}})
    job["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSION, strict=True)


def test_what_the_cluster_needs_is_valid(described: dict[str, Any]) -> None:
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    by_kind: dict[str, list[Any]] = {}
    for manifest in manifests:
        by_kind.setdefault(manifest["kind"], []).append(manifest)
    pools = described["kubernetes"]["definitions"]["work_pools"]
    claims = {pool["job_variables"]["data_claim"] for pool in pools.values()}
    assert {one["metadata"]["name"] for one in by_kind["PersistentVolumeClaim"]} == claims
    started = [one["spec"]["template"]["spec"]["containers"][0]["args"][-1] for one in by_kind["Deployment"]]
    assert started == [pool["name"] for pool in pools.values()]
    accounts = {one["spec"]["template"]["spec"]["serviceAccountName"] for one in by_kind["Deployment"]}
    assert accounts == {one["metadata"]["name"] for one in by_kind["ServiceAccount"]}
