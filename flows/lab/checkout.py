"""The clone in which a worker runs flows: each machine has its own, at whatever path."""

from __future__ import annotations

import os
from pathlib import Path

from sensorium_data.errors import UsageError

__all__ = ["DEPLOYMENTS_FILE", "ENTER_CHECKOUT", "enter_checkout", "find_checkout"]

#: The file that describes the deployments, in a clone's folder.
DEPLOYMENTS_FILE = "prefect.yaml"
#: How deployments name :func:`enter_checkout`, so that workers run it before a flow.
ENTER_CHECKOUT = f"{__name__}.enter_checkout"


def find_checkout() -> Path:
    """Return the folder of ``prefect.yaml``, in which deployed flows run.

    Raises
    ------
    UsageError
        If the package was installed without it.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / DEPLOYMENTS_FILE).is_file():
        raise UsageError(
            "the deployments are not described here",
            path=folder / DEPLOYMENTS_FILE,
            found="no such file",
            remedy="run it from a clone of the repository, installed with `pip install --editable .`",
        )
    return folder


def enter_checkout(directory: str) -> dict[str, str]:
    """Make the clone the working folder of a flow run; a pull step of deployments.

    Parameters
    ----------
    directory : str
        The clone on the machine that made the deployments. On a machine without it, the clone counts that the worker's
        environment has installed.

    Returns
    -------
    dict of str to str
        ``directory``, as Prefect wants it.

    Raises
    ------
    UsageError
        If this machine has neither.
    """
    if (Path(directory) / DEPLOYMENTS_FILE).is_file():
        folder = Path(directory)
    else:
        try:
            folder = find_checkout()
        except UsageError as error:
            raise UsageError(
                "this machine has no clone to run flows in",
                found=f"no {directory}, and an installation without {DEPLOYMENTS_FILE}",
                expected="a clone of the repository, at any path",
                remedy="install one for this worker with `pip install --editable .`, and start the worker again",
            ) from error
    os.chdir(folder)
    return {"directory": str(folder)}
