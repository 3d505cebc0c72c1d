"""Files that others wrote are read up to a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensorium_data.files import IrregularFileError, OversizeError, read_bounded


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OversizeError, match="more than 4 bytes"):
        read_bounded(path, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IrregularFileError):
        read_bounded(tmp_path / "pipe", 5)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 5)
