from __future__ import annotations

from pathlib import Path

import pytest

from sensorium_data.files import cache_folder


@pytest.mark.parametrize("value", ["", "cache", "./cache"])
def test_a_relative_cache_folder_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder("samples") == tmp_path / ".cache" / "sensorium" / "samples"


def test_an_absolute_cache_folder_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("samples") == tmp_path / "sensorium" / "samples"
