"""A Dask cluster that somebody else has started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sensorium_data.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["open_cluster"]

_TIMEOUT_S = 30.0


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[Client]:
    """Connect to a cluster while the block runs.

    Parameters
    ----------
    address : str
        The scheduler's, e.g. ``tcp://host:8786``.

    Raises
    ------
    UsageError
        If no scheduler answers there, or it has no workers.
    """
    # Imported here: it takes a second, and few need it.
    from distributed import Client

    try:
        client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            "no Dask scheduler answers here",
            path=address,
            found=str(error),
            expected="an address such as tcp://host:8786",
            remedy="start one with `dask scheduler`, and workers with `dask worker ADDRESS`; or leave out --dask",
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise UsageError(
                "the Dask scheduler has no workers", path=address, remedy="start some with `dask worker ADDRESS`"
            )
        yield client
