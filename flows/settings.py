"""Where things are and how much of the machine to use: read from the environment, overridden by arguments."""

from __future__ import annotations

import re
import tempfile
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sensorium_data.errors import UsageError

__all__ = ["Settings"]

# No object store signs for longer than S3 does: seven days.
_LONGEST_SIGNED_S = 604_800
_SERVED_FOLDER = re.compile(r"(/.*?)=(https?://\S+)")
# Of the settings that are more than a whole number from 1 up.
_EXPECTED = {
    "links": "a folder and a URL, e.g. /data=https://files.lab/",
    "keep_server_minutes": "a number from 0 up",
    "signed_links_s": f"a whole number from 1 to {_LONGEST_SIGNED_S}",
}


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
            name = str(first["loc"][0])
            raise UsageError(
                f"the environment's SENSORIUM_{name.upper()} cannot be used",
                found=repr(first["input"]),
                expected=_EXPECTED.get(name, "a whole number from 1 up"),
                remedy="set it to that, or unset it",
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

    links: str | None = Field(
        None, description="A folder and the URL under which a file server shows it, e.g. /data=https://files.lab/."
    )
    signed_links_s: int | None = Field(
        None,
        ge=1,
        le=_LONGEST_SIGNED_S,
        description="How long artifacts' signed links into object stores hold, in seconds. Unset: there are none.",
    )

    @field_validator("links")
    @classmethod
    def _require_folder_and_url(cls, value: str | None) -> str | None:
        if value is not None and not _SERVED_FOLDER.fullmatch(value):
            raise ValueError
        return value

    @property
    def served_folder(self) -> tuple[str, str] | None:
        """The folder that a file server shows, and its URL; None if there is none."""
        found = _SERVED_FOLDER.fullmatch(self.links or "")
        return (found[1], found[2]) if found else None

    @property
    def sources(self) -> list[str]:
        """Where archives are, in the order to try; empty for GIN."""
        return self.source.split() if self.source else []
