"""Where things are and how much of the machine to use: read from the environment, overridden by arguments."""

from __future__ import annotations

import os

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
        None, description="Where archives are: a URL or folder with <session>.zip files. Unset: GIN."
    )
    runs: str = Field("runs", description="Folder of training runs.")
    jobs: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Trials converted or simulated at the same time."
    )
