"""Where files are, for people who read artifacts: the path as text, and a link where a browser could open it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote

from flows.reporting.artifacts import publish_markdown
from flows.settings import Settings
from sensorium_data.errors import StoreError
from sensorium_data.files import RemoteObjects
from sensorium_data.markdown import quote_code
from sensorium_data.redaction import hide_secrets

__all__ = ["FileLinks", "publish_file"]

_LOCAL = re.compile(r"(file|local)://")
_WEB = re.compile(r"https?://")
# What ends a link in Markdown.
_ESCAPES = str.maketrans({"(": "%28", ")": "%29", " ": "%20", "<": "%3C", ">": "%3E"})


class FileLinks:
    """Writes where files are, for one artifact.

    A browser does not follow ``file://`` links from a server's page, so a local path is linked only if a file server
    shows it. An object store's object is linked only if signed links are asked for.

    Parameters
    ----------
    root, base : str, optional
        A folder, and the URL under which a file server shows it.
    signed_s : int, optional
        How long signed links hold, in seconds; without, none are made.
    now : callable
        Returns the time.

    Attributes
    ----------
    signed : list of str
        The signed links that were made: what :func:`flows.reporting.publish_markdown` may show.
    """

    def __init__(
        self,
        root: str | None = None,
        base: str | None = None,
        signed_s: int | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._root = None if root is None else Path(root).absolute()
        self._base = "" if base is None else base.rstrip("/")
        self._signed_s = signed_s
        self._now = now
        self.signed: list[str] = []

    @classmethod
    def from_settings(cls) -> Self:
        """Return what the environment asks for: ``SENSORIUM_LINKS`` and ``SENSORIUM_SIGNED_LINKS_S``."""
        settings = Settings()
        root, base = settings.served_folder or (None, None)
        return cls(root, base, settings.signed_links_s)

    def show(self, place: str, *, is_folder: bool = False) -> str:
        """Return a path or URL as Markdown, with a link behind it if one would open.

        Parameters
        ----------
        place : str
            Where the file or folder is.
        is_folder : bool
            Whether it is a folder, of which there is no signed link.
        """
        shown = quote_code(place if "://" in place else str(Path(place).absolute()))
        if _WEB.match(place):
            return f"{shown} ([open]({_escape(place)}))" if hide_secrets(place) == place else shown
        if "://" in place and not _LOCAL.match(place):
            return shown + ("" if is_folder else self._sign(place))
        served = self._find_served(_LOCAL.sub("", place))
        return f"{shown} ([open]({served}))" if served else shown

    def _find_served(self, path: str) -> str | None:
        if self._root is None:
            return None
        # Without following links: the file server shows the names below its root.
        place = Path(path).absolute()
        if not place.is_relative_to(self._root) or ".." in place.parts:
            return None
        return f"{self._base}/{quote(place.relative_to(self._root).as_posix())}"

    def _sign(self, url: str) -> str:
        if self._signed_s is None:
            return ""
        folder, _, name = url.rpartition("/")
        until = self._now() + timedelta(seconds=self._signed_s)
        try:
            signed = RemoteObjects(folder).sign(name, self._signed_s)
        except StoreError as error:
            return f" (it cannot be signed: {error})"
        if signed is None or not _WEB.match(signed):
            return ""
        signed = _escape(signed)
        self.signed.append(signed)
        return f" ([open]({signed}) until {until:%Y-%m-%d %H:%M} UTC)"


def _escape(url: str) -> str:
    return url.translate(_ESCAPES)


def publish_file(key: str, place: str, description: str) -> None:
    """Publish where a file is, with a link if a browser could open it."""
    links = FileLinks.from_settings()
    publish_markdown(key, links.show(place), description, signed=links.signed)
