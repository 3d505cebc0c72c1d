"""Whether an archive says that it is simulated.

:mod:`sensorium_data.simulation` writes it into the archive's ``config.json``. The published archives hold a file of
that name too, without this mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensorium_data.archive import SessionArchive
from sensorium_data.files import parse_json

__all__ = ["SimulationMark", "read_simulation_mark"]

_MEMBER = "config.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class SimulationMark:
    """What a simulated archive says of its simulation.

    Attributes
    ----------
    seed, version : int or None
        Of the simulation; None where the archive does not say.
    """

    seed: int | None
    version: int | None

    @property
    def attributes(self) -> dict[str, Any]:
        """What a store of the archive says in its attributes."""
        said = {"simulation_seed": self.seed, "simulation_version": self.version}
        return {"simulated": True, **{name: value for name, value in said.items() if value is not None}}


def read_simulation_mark(archive: SessionArchive) -> SimulationMark | None:
    """Return what an archive says of its simulation, None if it does not say that it is simulated.

    Raises
    ------
    ArchiveError, SourceError
        If the file that says it is damaged or cannot be had. One that is no JSON says nothing.
    """
    entry = archive.entries.get(archive.member(_MEMBER))
    if entry is None or entry.size_bytes > _MOST_BYTES:
        return None
    try:
        config = parse_json(bytes(archive.read_member(entry.name)))
    except ValueError:
        return None
    if not isinstance(config, dict) or config.get("simulated") is not True:
        return None
    return SimulationMark(_read_number(config, "seed"), _read_number(config, "simulator_version"))


def _read_number(config: dict[str, Any], name: str) -> int | None:
    value = config.get(name)
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return value if is_number else None
