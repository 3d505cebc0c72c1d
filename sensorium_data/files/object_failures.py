"""What keeps objects from being read and written, as errors that name them."""

from __future__ import annotations

from sensorium_data.errors import StoreError, describe_os_error
from sensorium_data.files.regular_file import IrregularFileError
from sensorium_data.names import find_name_problem

__all__ = ["describe_failure", "require_key"]


def require_key(key: str, url: str) -> None:
    """Raise a :class:`StoreError` if a key leads out of the root at a URL."""
    problem = find_name_problem(key)
    if problem is not None:
        raise StoreError(
            "a name leads out of the folder",
            path=url,
            found=f"{key!r}: {problem}",
            expected="a name below it",
            remedy="do not trust what lies there; make it again, or copy it again",
        )


def describe_failure(action: str, path: str, error: BaseException, remedy: str | None = None) -> StoreError:
    """Return the error that says what could not be done with an object: it cannot be ``read``, ``written``, …."""
    reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return StoreError(
        f"cannot be {action}",
        path=path,
        found=reason or type(error).__name__,
        remedy=remedy or _find_remedy(action, error),
    )


def _find_remedy(action: str, error: BaseException) -> str:
    if action == "written":
        return "check the space and the permissions there, and run it again: what is finished is kept"
    if isinstance(error, IrregularFileError):
        return "put the file there, or remove what lies in its place"
    return "check the path and its permissions"
