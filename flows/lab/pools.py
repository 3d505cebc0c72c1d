"""The work pools and the limit that deployments need on a Prefect server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.lab.descriptions import Change, Deployed
from flows.training import GPU_LIMIT
from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files import describe_damage

__all__ = ["PoolKind", "make_limit", "make_pool", "plan_limit", "plan_pool"]

# The type of pools that do not exist yet; a pool that somebody made keeps its own.
_POOL_TYPE = "process"


@dataclass(frozen=True)
class PoolKind:
    """What kind of work pool is made where there is none.

    Attributes
    ----------
    type : str
        Prefect's name for it.
    template : mapping
        Its base job template; empty for Prefect's own.
    is_required : bool
        Whether the deployments fit no pool of another type.
    """

    type: str = _POOL_TYPE
    template: Mapping[str, Any] = field(default_factory=dict)
    is_required: bool = False

    @classmethod
    def read(cls, document: Mapping[str, Any], checkout: Path, file: Path) -> PoolKind:
        """Return what a file like ``prefect.yaml`` says of them in its ``definitions.pools``.

        Raises
        ------
        UsageError
            If that cannot be used.
        """
        try:
            described = (document.get("definitions") or {}).get("pools")
            if described is None:
                return cls()
            template = described.get("base_job_template")
            return cls(
                type=str(described["type"]),
                template={} if template is None else json.loads((checkout / template).read_text(encoding="utf-8")),
                is_required=True,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                "definitions.pools cannot be used",
                path=file,
                found=describe_os_error(error) if isinstance(error, OSError) else describe_damage(error),
                expected="a type, and the file of a base_job_template if it is not Prefect's own",
            ) from error

    def require_fitting(self, client: SyncPrefectClient, name: str) -> None:
        """Raise a :class:`UsageError` if there is a pool of this name on which the deployments could not run."""
        try:
            found = client.read_work_pool(name).type
        except ObjectNotFound:
            return
        if self.is_required and found != self.type:
            raise UsageError(
                f"the work pool {name} is of another type",
                found=found,
                expected=self.type,
                remedy=f"delete it with `prefect work-pool delete {name}`, or give the pools in the file other names",
            )


def plan_pool(client: SyncPrefectClient, name: str, kind: PoolKind) -> list[Change]:
    """Return what :func:`make_pool` changes."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        return [Change("work pool", name, "type", "", kind.type)]
    return []


def make_pool(client: SyncPrefectClient, name: str, kind: PoolKind) -> Deployed:
    """Make a work pool, if there is none of this name."""
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind.type, base_job_template=dict(kind.template)))
    except ObjectAlreadyExists:
        return Deployed("work pool", name, "already there", client.read_work_pool(name).type)
    return Deployed("work pool", name, "made", kind.type)


def plan_limit(client: SyncPrefectClient) -> list[Change]:
    """Return what :func:`make_limit` changes."""
    try:
        client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except ObjectNotFound:
        return [Change("concurrency limit", GPU_LIMIT, "limit", "", "1 at a time")]
    return []


def make_limit(client: SyncPrefectClient) -> Deployed:
    """Make the limit on GPU tasks, if there is none."""
    try:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
    except ObjectAlreadyExists:
        limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT).limit
        return Deployed("concurrency limit", GPU_LIMIT, "already there", f"{limit} at a time")
    return Deployed("concurrency limit", GPU_LIMIT, "made", "1 at a time")
