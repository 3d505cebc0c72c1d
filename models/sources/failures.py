"""An error in the code of a model that is no part of this package: where in that code, in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import ValidationError

from models.sources.importing import find_loaded
from sensorium_data.errors import SensoriumError, UsageError

__all__ = ["explain_failures"]


@contextmanager
def explain_failures(what: str, code: Mapping[str, str]) -> Iterator[None]:
    """Turn an error that is raised in, or through, a model's own code into one that names its file and line.

    Known errors, those of forms of settings, and those that have nothing to do with that code, are raised as they are.

    Parameters
    ----------
    what : str
        What fails then, e.g. the model's class.
    code : mapping of str to str
        Digests of the code, as the model's settings have them; empty for models of this package.

    Raises
    ------
    UsageError
        The error behind it is its cause.
    """
    try:
        yield
    except (SensoriumError, ValidationError, KeyboardInterrupt):
        raise
    # A sys.exit() in a model's code ends what uses it, and not this process.
    except BaseException as error:
        place = _find_line(error, code)
        # What is out of memory is told by those who know what to lower.
        if place is None or type(error).__name__ == "OutOfMemoryError":
            raise
        said = _say(error)
        raise UsageError(
            f"the code of {what} fails",
            path=place,
            found=f"{type(error).__name__}: {said}" if said else type(error).__name__,
            remedy="correct it, or the settings that it is given; with SENSORIUM_TRACEBACK=1 all calls are shown",
        ) from error


def _say(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (the class of an error may be a model's own, too)
        return ""


def _find_line(error: BaseException, code: Mapping[str, str]) -> str | None:
    """Return the file and the line of the innermost call of a model's code."""
    loaded = find_loaded(code) if code else None
    if loaded is None:
        return None
    own = {loaded.sources.origins.get(path) for path in loaded.sources.files}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    return f"{lines[-1].filename}:{lines[-1].lineno}" if lines else None
