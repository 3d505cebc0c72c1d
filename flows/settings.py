"""Where things are and how much of the machine to use: read from the environment, overridden by arguments."""

from __future__ import annotations

import tempfile

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Defaults of the flows and commands; each is read from ``SENSORIUM_<NAME>``.

    Examples
    --------
    >>> Settings(jobs=4).jobs
    4
    """

    model_config = SettingsConfigDict(env_prefix="SENSORIUM_", extra="ignore")

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

    @property
    def sources(self) -> list[str]:
        """Where archives are, in the order to try; empty for GIN."""
        return self.source.split() if self.source else []
