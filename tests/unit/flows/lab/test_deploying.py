"""Deploying, on a server in memory: what is made of each file that describes deployments, and what they are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from fixtures.memory_server import MemoryServer
from fixtures.places import CHECKOUT
from flows.cli.entry import main
from flows.cli.lab import _parameters
from flows.lab import deploy
from flows.lab.deployment import Deployment

FILES = ("prefect.yaml", "deploy/prefect.docker.yaml", "deploy/prefect.kubernetes.yaml")
POOLS = {"ingest": "cpu", "quality": "cpu", "submit": "cpu", "pipeline": "cpu"}
POOLS |= {"train": "gpu", "train-ensemble": "gpu", "predict": "gpu", "evaluate": "gpu"}

#: What the options of `deploy` set.
OPTIONS = _parameters("/lab/store", "/lab/out", "/lab/runs", ["/lab/archives"], ["F"], "gru")
#: The flows that take each of them.
TAKEN_BY = {
    "store": set(POOLS),
    "out": {"submit", "pipeline"},
    "runs": {"train", "train-ensemble", "submit", "pipeline"},
    "runs_folder": {"predict", "evaluate"},
    "source": {"ingest", "pipeline"},
    "sessions": {"ingest", "quality", "train", "train-ensemble", "predict", "pipeline"},
    "preset": {"train", "train-ensemble", "pipeline"},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MemoryServer:
    return MemoryServer().use(monkeypatch)


def deploy_file(name: str, parameters: Mapping[str, Any] | None = None, *, dry_run: bool = False) -> Deployment:
    return deploy(parameters or {}, CHECKOUT, file=CHECKOUT / name, dry_run=dry_run)


def crons(server: MemoryServer, name: str) -> dict[str, bool]:
    """When a deployment's schedules are due, and whether they are switched on."""
    return {
        one.schedule.cron: one.active
        for one in server.deployments[name].schedules
        if isinstance(one.schedule, CronSchedule)
    }


@pytest.mark.parametrize("file", FILES)
def test_every_deployment_is_made_and_made_once(file: str, server: MemoryServer) -> None:
    planned = deploy_file(file, OPTIONS, dry_run=True)
    assert planned.done == ()
    assert server.deployments == {}
    assert server.pools == {}
    done = deploy_file(file, OPTIONS).done
    assert {one.status for one in done} == {"made"}
    assert {name: one.work_pool_name for name, one in server.deployments.items()} == {
        f"{name}/{name}": pool for name, pool in POOLS.items()
    }
    assert {one.name for one in done if one.kind == "deployment"} == server.deployments.keys()
    assert {one.name for one in planned.changes} == {one.name for one in done}
    again = deploy_file(file, OPTIONS)
    assert again.changes == again.kept == ()
    assert {one.status for one in again.done} == {"already there"}


def test_options_go_to_the_flows_that_take_them(server: MemoryServer) -> None:
    deploy_file("prefect.yaml", OPTIONS)
    for parameter, value in OPTIONS.items():
        taken = {one.name for one in server.deployments.values() if one.parameters.get(parameter) == value}
        assert taken == TAKEN_BY[parameter], parameter


def test_schedules_of_the_file_follow_it_beside_those_of_people(server: MemoryServer, tmp_path: Any) -> None:
    deploy_file("prefect.yaml")
    assert crons(server, "train/train") == {"0 5 * * *": False}
    train = server.deployments["train/train"]
    train.schedules[0].active = True
    theirs = DeploymentSchedule(schedule=CronSchedule(cron="0 12 * * *", timezone="UTC"), active=False)
    train.schedules.append(theirs)
    described = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
    (entry,) = (one for one in described["deployments"] if one["name"] == "train")
    for cron, expected in (("30 5 * * *", {"30 5 * * *": True}), (None, {})):
        # At last it is described no more.
        entry["schedules"] = [] if cron is None else [{**entry["schedules"][0], "cron": cron}]
        (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(described))
        deploy({}, CHECKOUT, file=tmp_path / "prefect.yaml")
        assert crons(server, "train/train") == {"0 12 * * *": False, **expected}
    assert crons(server, "ingest/ingest") == {"0 3 * * *": False}


def test_the_lines_that_the_command_shows_name_what_it_has_made(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.lab.require_server", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(["deploy", "--store", "/lab/store"])
    assert ended.value.code == 0
    _, _, shown = capsys.readouterr().out.partition("\nNext\n")
    assert set(re.findall(r" ([\w-]+/[\w-]+)$", shown, re.MULTILINE)) == {"pipeline/pipeline", "ingest/ingest"}
    assert set(re.findall(r"--pool (\w+)", shown)) == server.pools.keys()
    assert server.deployments.keys() >= {"pipeline/pipeline", "ingest/ingest"}
