"""What is kept on the server of the deployments' descriptions, and files that describe none."""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.flows import load_flow_from_entrypoint

from fixtures.places import CHECKOUT
from flows.lab import deploy
from flows.lab.deployment import _name_entries, _pack_bases, _read_bases, _write_bases
from flows.lab.descriptions import read_described
from sensorium_data.errors import UsageError


class Variables:
    """The part of a server's client that keeps variables, as far as it is used."""

    def __init__(self, **kept: Any) -> None:
        self.kept = {name.replace("_", "-"): VariableCreate(name="any", value=value) for name, value in kept.items()}

    def read_variable_by_name(self, name: str) -> VariableCreate | None:
        return self.kept.get(name)

    def create_variable(self, variable: VariableCreate) -> None:
        assert variable.name not in self.kept
        self.kept[variable.name] = variable

    def update_variable(self, variable: VariableUpdate) -> None:
        assert variable.name is not None
        self.kept[variable.name] = VariableCreate(name=variable.name, value=variable.value)


def name_entries(name: str) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((CHECKOUT / name).read_text())
    return _name_entries(document, CHECKOUT, CHECKOUT / name)


def describe(name: str, n_volumes: int = 0) -> dict[str, Any]:
    """What a file of the checkout describes, with further volumes in each deployment."""
    described = {key: read_described(entry) for key, entry in name_entries(name).items()}
    for one in described.values():
        one["work_pool"]["job_variables"]["volumes"] = [f"/data/archives-{i}:/archives/{i}" for i in range(n_volumes)]
    return described


@pytest.mark.parametrize("name", ["prefect.yaml", "deploy/prefect.docker.yaml", "deploy/prefect.kubernetes.yaml"])
def test_deployments_have_the_names_by_which_a_server_finds_them(name: str) -> None:
    entries = name_entries(name)
    assert len(entries) >= 8
    for full_name, entry in entries.items():
        flow = load_flow_from_entrypoint(str(CHECKOUT / entry["entrypoint"]))
        assert full_name == f"{flow.name}/{entry['name']}"


def test_what_files_describe_is_kept_whatever_volumes_people_add(tmp_path: Path) -> None:
    client = Variables()
    server = cast(SyncPrefectClient, client)
    assert _read_bases(server) == {}
    for n_volumes in (20, 40):
        described = describe("deploy/prefect.docker.yaml", n_volumes)
        _write_bases(server, _pack_bases(described, tmp_path))
        assert _read_bases(server) == described
    # As earlier versions kept it.
    old = describe("prefect.yaml")
    assert _read_bases(cast(SyncPrefectClient, Variables(sensorium_described=old))) == old


def test_a_variable_that_somebody_has_changed_is_told() -> None:
    for value in ("changed", "é", "", base64.b85encode(zlib.compress(b"{")).decode()):
        with pytest.raises(UsageError, match=r"variable sensorium-described cannot be read: .*prefect variable unset"):
            _read_bases(cast(SyncPrefectClient, Variables(sensorium_described=value)))


def test_descriptions_that_no_variable_holds_are_refused_before_anything_is_changed(tmp_path: Path) -> None:
    noise = {str(i): hashlib.sha256(str(i).encode()).hexdigest() for i in range(200)}
    with pytest.raises(UsageError, match=r"too long for the server to keep: .*expected up to 4,998"):
        _pack_bases({"ingest/ingest": noise}, tmp_path / "deployments.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("deployments: [{}]\n", "deployment 1 of the file cannot be used"),
        ("deployments: [text]\n", "deployment 1 of the file cannot be used"),
        ("deployments:\n- {name: a, entrypoint: 'flows/train.py:train', work_pool: {}}\n", "no name, entrypoint or"),
        (
            "deployments:\n- {name: a, entrypoint: 'flows/train.py:train', work_pool: {name: }}\n",
            "no name, entrypoint or",
        ),
        ("deployments:\n- {name: a, entrypoint: flows/train.py, work_pool: {name: cpu}}\n", "flow of the deployment a"),
        ("deployments:\n- {name: a, entrypoint: 'no.py:train', work_pool: {name: cpu}}\n", "flow of the deployment a"),
        (
            "deployments:\n- {name: a, entrypoint: 'flows/train.py:no', work_pool: {name: cpu}}\n",
            "found flows/train.py:no",
        ),
        ("deployments: [{}]\ndefinitions: [pools]\n", "definitions.pools cannot be used"),
    ],
)
def test_deployments_that_lack_what_they_need_are_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "deployments.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=said) as refused:
        deploy({}, CHECKOUT, file=file, dry_run=True)
    assert str(file) in str(refused.value)
