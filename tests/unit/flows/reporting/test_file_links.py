"""Links to files: only those that a browser could open."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import flows.reporting.artifacts
from flows.reporting.artifacts import publish_markdown
from flows.reporting.file_links import FileLinks
from flows.settings import Settings
from sensorium_data.errors import UsageError
from sensorium_data.files import RemoteObjects

SIGNED = "https://s3.lab/out/a.zip?X-Amz-Credential=me&X-Amz-Signature=12ab"


def test_a_local_path_is_text_and_no_link() -> None:
    assert FileLinks().show("/data/out/a.zip") == "`/data/out/a.zip`"
    assert FileLinks().show("out/a.zip") == f"`{Path.cwd() / 'out/a.zip'}`"


def test_a_path_below_the_served_folder_has_the_link_of_the_file_server() -> None:
    links = FileLinks("/data", "https://files.lab/lab/")
    assert links.show("/data/my out/a(1).zip") == (
        "`/data/my out/a(1).zip` ([open](https://files.lab/lab/my%20out/a%281%29.zip))"
    )
    assert links.show("file:///data/a.zip") == "`file:///data/a.zip` ([open](https://files.lab/lab/a.zip))"
    for elsewhere in ("/database/a.zip", "/data/../etc/passwd", "out/a.zip"):
        assert "open" not in links.show(elsewhere)


def test_a_url_is_its_own_link_unless_it_holds_a_secret() -> None:
    assert FileLinks().show("https://lab/a.zip") == "`https://lab/a.zip` ([open](https://lab/a.zip))"
    assert "open" not in FileLinks().show("https://me:pass@lab/a.zip")


def test_objects_are_linked_only_if_signed_links_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteObjects, "sign", lambda *_: SIGNED)
    assert FileLinks().show("memory://out/a.zip") == "`memory://out/a.zip`"
    links = FileLinks(signed_s=3600, now=lambda: datetime(2026, 11, 30, 12, 30, tzinfo=UTC))
    assert links.show("memory://out/a.zip") == f"`memory://out/a.zip` ([open]({SIGNED}) until 2026-11-30 13:30 UTC)"
    assert links.show("memory://out", is_folder=True) == "`memory://out`"
    assert links.signed == [SIGNED]


def test_a_file_system_that_cannot_sign_leaves_the_text() -> None:
    assert FileLinks(signed_s=60).show("memory://out/a.zip") == "`memory://out/a.zip`"


def test_only_the_signed_links_keep_their_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(flows.reporting.artifacts, "report", lambda send: send())
    monkeypatch.setattr(flows.reporting.artifacts, "create_artifact", lambda _k, _kind, data, _d: made.append(data))
    text = f"`https://me:pass@lab/` ([open]({SIGNED})), and {SIGNED} as text"
    publish_markdown("k", text, "d", signed=[SIGNED])
    (shown,) = made
    hidden = "https://s3.lab/out/a.zip?X-Amz-Credential=…&X-Amz-Signature=…"
    assert shown == f"`https://…@lab/` ([open]({SIGNED})), and {hidden} as text"


def test_the_environment_says_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().served_folder is None
    monkeypatch.setenv("SENSORIUM_LINKS", "/data/x=1=https://files.lab/")
    assert Settings().served_folder == ("/data/x=1", "https://files.lab/")
    for wrong in ("https://files.lab/", "data=https://files.lab/", "/data=file:///data"):
        monkeypatch.setenv("SENSORIUM_LINKS", wrong)
        with pytest.raises(UsageError, match="a folder and a URL"):
            Settings()
    monkeypatch.delenv("SENSORIUM_LINKS")
    monkeypatch.setenv("SENSORIUM_SIGNED_LINKS_S", "604801")
    with pytest.raises(UsageError, match="from 1 to 604800"):
        Settings()
