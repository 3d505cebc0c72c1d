"""Where things are and how much of the machine to use: read from the environment, overridden by arguments."""

from __future__ import annotations

import tempfile
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sensorium_data.errors import UsageError

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Defaults of the flows and commands; each is read from ``SENSORIUM_<NAME>``.

    Examples
    --------
    >>> Settings(jobs=4).jobs
    4
    """

    model_config = SettingsConfigDict(env_prefix="SENSORIUM_", extra="ignore")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            is_count = first["loc"][0] != "keep_server_minutes"
            # All others are text, and text is all that an environment has.
            raise UsageError(
                f"the environment's SENSORIUM_{str(first['loc'][0]).upper()} cannot be used",
                found=repr(first["input"]),
                expected="a whole number from 1 up" if is_count else "a number from 0 up",
                remedy="set it to one, or unset it",
            ) from error

    source: str | None = Field(
        None, description="Where archives are: URLs or folders with <session>.zip files, apart by spaces. Unset: GIN."
    )
    runs: str = Field("runs", description="Folder of training runs.")
    downloads: str | None = Field(
        None, description="Folder that downloaded archives are kept in. Unset: sensorium/archives in the user's cache."
    )
    jobs: int | None = Field(
        None,
        ge=1,
        description="Trials at the same time. Unset: one a core, or 8 where archives come by network.",
    )

    locks: str = Field(
        default_factory=tempfile.gettempdir,
        description="Folder of the GPUs' lock files, the same for all who share them. Unset: the temporary folder.",
    )
    keep_server_minutes: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="Minutes that the Prefect server of --flow stays without use. 0: it ends with the command.",
    )

    server_wait_s: int = Field(
        86_400, ge=1, description="How long a flow that is done waits for a Prefect server that is away, in seconds."
    )

    @property
    def sources(self) -> list[str]:
        """Where archives are, in the order to try; empty for GIN."""
        return self.source.split() if self.source else []
