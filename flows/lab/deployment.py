"""What a Prefect server has to know before workers can run the flows: pools, limits, an automation, deployments."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_arguments_from_entrypoint, load_flow_from_entrypoint
from prefect.types import MAX_VARIABLE_VALUE_LENGTH

from flows.lab.automations import (
    make_lost_runs_automation,
    notify_of_failures,
    plan_lost_runs_automation,
    plan_notification,
)
from flows.lab.checkout import DEPLOYMENTS_FILE, ENTER_CHECKOUT
from flows.lab.descriptions import (
    Change,
    Deployed,
    accepts,
    compare,
    find_kept,
    merge,
    read_deployed,
    read_described,
)
from flows.lab.pools import PoolKind, make_limit, make_pool, plan_limit, plan_pool
from flows.lab.schedules import describe_schedule, is_same_schedule, read_schedule
from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files import describe_damage

__all__ = ["Deployment", "deploy"]

# The variable on the server that keeps what was described when the deployments were last made.
_BASES_VARIABLE = "sensorium-described"


@dataclass(frozen=True)
class Deployment:
    """What deploying did.

    Attributes
    ----------
    done : tuple of Deployed
        What the server has now; empty if nothing was to be changed.
    changes : tuple of Change
        What differs from what the server had.
    kept : tuple of str
        A line for each setting that is not as described, since people have set it on the server.
    """

    done: tuple[Deployed, ...]
    changes: tuple[Change, ...]
    kept: tuple[str, ...]


def deploy(
    parameters: Mapping[str, Any],
    checkout: Path,
    *,
    file: Path | None = None,
    notify: str | None = None,
    dry_run: bool = False,
) -> Deployment:
    """Put the deployments on the server that ``PREFECT_API_URL`` names, with all that they need there.

    May be repeated: what ``prefect.yaml`` describes is brought up to date, and what people set on the server stays as
    they set it, namely parameters, schedules and their switches, limits, pools, tags and descriptions.

    Parameters
    ----------
    parameters : mapping
        Parameters to set in each deployment whose flow takes one of that name and type, whatever it had.
    checkout : Path
        The folder of ``prefect.yaml``.
    file : Path, optional
        What describes the deployments in the place of ``prefect.yaml``. Its ``definitions.pools`` may say the ``type``
        of pools that do not exist yet, and the file of their ``base_job_template``, relative to ``checkout``; pools of
        another type are refused then.
    notify : str, optional
        A webhook that is told of failures, as :func:`~flows.lab.automations.notify_of_failures` takes it.
    dry_run : bool
        Change nothing, and return what would change.

    Returns
    -------
    Deployment
        What the server has now, in the order in which it was put there, and what changed.

    Raises
    ------
    UsageError
        If a file cannot be read, a pool is of another type, the webhook is no URL, or Prefect refuses the deployments.
    """
    file = file or checkout / DEPLOYMENTS_FILE
    document = _read_description(file)
    kind = PoolKind.read(document, checkout, file)
    entries = _name_entries(document, checkout, file)
    with get_client(sync_client=True) as client:
        bases = _read_bases(client)
        # Those that other files describe stay.
        new_bases = _pack_bases(bases | {name: read_described(entry) for name, entry in entries.items()}, file)
        settings: dict[str, dict[str, Any]] = {}
        of_deployments: list[Change] = []
        kept: list[str] = []
        is_new: dict[str, bool] = {}
        for name, entry in entries.items():
            found = _find(client, name)
            described, deployed = read_described(entry), None if found is None else read_deployed(found)
            is_new[name] = found is None
            asked = _choose_parameters(checkout, entry, parameters)
            settings[name] = merge(described, deployed, bases.get(name), asked)
            of_deployments += compare(name, deployed, settings[name])
            kept += find_kept(name, described, deployed, bases.get(name), asked)
        pools = dict.fromkeys(one["work_pool"]["name"] for one in settings.values())
        for name in pools:
            kind.require_fitting(client, name)
        changes = [change for name in pools for change in plan_pool(client, name, kind)]
        changes += [*plan_limit(client), *plan_lost_runs_automation(client)]
        changes += [] if notify is None else plan_notification(client, notify)
        changes += of_deployments
        if dry_run:
            return Deployment((), tuple(changes), tuple(kept))
        done = [make_pool(client, name, kind) for name in pools]
        done += [make_limit(client), make_lost_runs_automation(client)]
        # A worker on another machine has its clone elsewhere.
        pull = document.get("pull") or [{ENTER_CHECKOUT: {"directory": str(checkout)}}]
        _run_prefect_deploy(
            checkout,
            file,
            {**document, "pull": pull, "deployments": [entry | settings[name] for name, entry in entries.items()]},
        )
        _delete_dropped_schedules(client, settings, bases)
        _write_bases(client, new_bases)
        changed = {change.name for change in of_deployments}
        for name, one in settings.items():
            status = "made" if is_new[name] else "updated" if name in changed else "already there"
            schedules = "".join(f", schedule {describe_schedule(schedule)}" for schedule in one["schedules"])
            done.append(Deployed("deployment", name, status, f"pool {one['work_pool']['name']}{schedules}"))
        done += [] if notify is None else notify_of_failures(client, notify)
    return Deployment(tuple(done), tuple(changes), tuple(kept))


def _read_description(file: Path) -> dict[str, Any]:
    """Return what a file like ``prefect.yaml`` describes."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not document["deployments"]:
            raise ValueError("no deployments")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        found = describe_os_error(error) if isinstance(error, OSError) else describe_damage(error)
        raise UsageError(
            "the file does not describe deployments",
            path=file,
            found=found,
            expected="YAML as prefect.yaml has it",
            remedy="name another file",
        ) from error
    return dict(document)


def _name_entries(document: Mapping[str, Any], checkout: Path, file: Path) -> dict[str, dict[str, Any]]:
    """Return what describes each deployment, by the names of the flow and of the deployment, ``ingest/ingest``."""
    entries = {}
    for number, entry in enumerate(document["deployments"], 1):
        try:
            name, entrypoint, pool = entry["name"], entry["entrypoint"], entry["work_pool"]["name"]
        except (KeyError, TypeError):
            name = entrypoint = pool = None
        if not all(isinstance(one, str) and one for one in (name, entrypoint, pool)):
            raise UsageError(
                f"deployment {number} of the file cannot be used",
                path=file,
                found="no name, entrypoint or name of a work pool",
                expected="all of them, as prefect.yaml has them",
            )
        try:
            # A flow may be called otherwise than its function.
            flow = load_flow_arguments_from_entrypoint(str(checkout / entrypoint), {"name"})["name"]
        except (OSError, ValueError, SyntaxError) as error:
            raise UsageError(
                f"the flow of the deployment {name} cannot be found",
                path=file,
                found=entrypoint,
                expected=f"a file of {checkout} and a function in it, as flows/train.py:train",
            ) from error
        entries[f"{flow}/{name}"] = dict(entry)
    return entries


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _delete_dropped_schedules(
    client: SyncPrefectClient, settings: Mapping[str, Mapping[str, Any]], bases: Mapping[str, Mapping[str, Any]]
) -> None:
    """Delete schedules of ours that are described no more: Prefect leaves them where others, or none, are given."""
    for name, one in settings.items():
        deployment = client.read_deployment_by_name(name)
        for schedule in deployment.schedules:
            there = read_schedule(schedule)
            was_ours = any(is_same_schedule(there, before) for before in bases.get(name, {}).get("schedules", ()))
            if was_ours and not any(is_same_schedule(there, wanted) for wanted in one["schedules"]):
                client.delete_deployment_schedule(deployment.id, schedule.id)


def _choose_parameters(checkout: Path, entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a flow takes: `runs` is a folder for some flows, and a list of runs for others."""
    if not parameters:
        return {}
    known = load_flow_from_entrypoint(str(checkout / entry["entrypoint"])).parameters.properties
    return {name: value for name, value in parameters.items() if name in known and accepts(known[name], value)}


def _read_bases(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """Return what was described when each deployment was last made.

    Raises
    ------
    UsageError
        If somebody has changed the variable that keeps it.
    """
    variable = client.read_variable_by_name(_BASES_VARIABLE)
    value = None if variable is None else variable.value
    if isinstance(value, str):
        try:
            value = json.loads(zlib.decompress(base64.b85decode(value)))
        except (ValueError, zlib.error) as error:
            raise UsageError(
                f"the server's variable {_BASES_VARIABLE} cannot be read",
                found="something else than `sensorium deploy` wrote there",
                remedy=f"delete it with `prefect variable unset {_BASES_VARIABLE}`; where deployments differ from the "
                "file, they then stay as they are on the server",
            ) from error
    # Earlier versions kept them as they are.
    return dict(value) if isinstance(value, dict) else {}


def _pack_bases(bases: Mapping[str, Any], file: Path) -> str:
    """Return what is described as the text of a variable: compressed, since deployments repeat each other's settings.

    Raises
    ------
    UsageError
        If a variable cannot hold it.
    """
    packed = base64.b85encode(zlib.compress(json.dumps(bases, sort_keys=True, default=str).encode(), 9)).decode()
    n_most = MAX_VARIABLE_VALUE_LENGTH - len('""')
    if len(packed) > n_most:
        raise UsageError(
            "the deployments' descriptions are too long for the server to keep",
            path=file,
            found=f"{len(packed):,} characters, compressed",
            expected=f"up to {n_most:,}",
            remedy="keep job templates in a file of their own: `base_job_template` of definitions.pools",
        )
    return packed


def _write_bases(client: SyncPrefectClient, packed: str) -> None:
    if client.read_variable_by_name(_BASES_VARIABLE) is None:
        client.create_variable(VariableCreate(name=_BASES_VARIABLE, value=packed))
    else:
        client.update_variable(VariableUpdate(name=_BASES_VARIABLE, value=packed))


def _run_prefect_deploy(checkout: Path, described_in: Path, document: Mapping[str, Any]) -> None:
    """Have Prefect deploy what a file like ``prefect.yaml`` describes."""
    with tempfile.TemporaryDirectory(prefix="sensorium-deploy-") as folder:
        file = Path(folder, DEPLOYMENTS_FILE)
        file.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if done.returncode:
        raise UsageError(
            "Prefect refused the deployments",
            path=described_in,
            found=" ".join((done.stderr or done.stdout).split())[-500:],
            remedy=f"try `prefect deploy --all --prefect-file {described_in}` in {checkout}",
        )
