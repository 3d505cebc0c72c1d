"""The tree of opened sessions, whose nodes are found by alias as well as by name."""

from __future__ import annotations

from typing import Any

import xarray as xr

from sensorium_data.errors import UnknownNameError
from sensorium_data.sessions import find_session

__all__ = ["SessionTree"]


class SessionTree(xr.DataTree):  # type: ignore[no-untyped-call]  # xarray leaves it untyped
    """An :class:`xarray.DataTree` of sessions, a node a session under its full name.

    ``tree["F"]`` is the node of session F, and ``tree["F/responses"]`` its responses; full names work too. All else is
    xarray's. What xarray's own methods return is a plain tree.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """Return a child, a variable, or what lies at a path that begins with a session's alias or name."""
        return super().__getitem__(self._resolve(key))

    def __contains__(self, key: object) -> bool:
        """Whether there is a child or variable of this name, or a session of this alias."""
        return super().__contains__(self._resolve(key))

    def _resolve(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        first, slash, rest = key.partition("/")
        if not first or first in self.children or first in self.variables:
            return key
        try:
            name = find_session(first).name
        except UnknownNameError:
            return key
        return f"{name}{slash}{rest}" if name in self.children else key
