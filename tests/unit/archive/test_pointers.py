"""Files whose content git-annex or Git LFS keeps elsewhere: each is told from damage, with what fetches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.archives import IMPATIENT, SESSION, npy, session_members, write_session, write_zip
from sensorium_data.archive import Mode, SessionArchive, open_archive
from sensorium_data.archive.pointers import find_pointer
from sensorium_data.errors import SensoriumError, TrialError
from sensorium_data.testing import serve_directory
from sensorium_data.testing.faults import IgnoreRange

NAME = f"{SESSION.name}.zip"
KEY = "MD5-s10394857233--0123456789abcdef0123456789abcdef"

POINTERS = {
    "unlocked": (f"/annex/objects/{KEY}\n", "git annex get", f"a pointer to {KEY}, 10394857233 bytes"),
    "of another backend": ("/annex/objects/SHA256E-s31--f5.zip", "git annex get", "SHA256E-s31--f5.zip, 31 bytes"),
    "without a size": ("/annex/objects/WORM--f5\n", "git annex get", "a pointer to WORM--f5"),
    "of a smudged file": (f"/annex/objects/{KEY}\nmore\n", "git annex get", f"a pointer to {KEY}, "),
    "a link as text": (f"../.git/annex/objects/Xx/1/{KEY}/{KEY}", "git annex get", f"a pointer to {KEY}, "),
    "on Windows": (f"..\\.git\\annex\\objects\\Xx\\1\\{KEY}\\{KEY}", "git annex get", f"a pointer to {KEY}, "),
    "LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "git lfs pull --include",
        "a pointer to 12345 bytes",
    ),
}


@pytest.mark.parametrize(("content", "command", "found"), POINTERS.values(), ids=POINTERS)
class TestPointers:
    def test_in_place_of_an_archive(self, tmp_path: Path, content: str, command: str, found: str) -> None:
        (tmp_path / NAME).write_text(content)
        with pytest.raises(SensoriumError, match=r"not fetched with [gG]it") as caught:
            open_archive(SESSION, [str(tmp_path)])
        assert found in str(caught.value)
        assert f"{command} {tmp_path / NAME}" in str(caught.value)
        assert caught.value.session == SESSION.name

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]])
    def test_from_a_server(
        self, tmp_path: Path, content: str, command: str, found: str, mode: Mode, faults: list[IgnoreRange]
    ) -> None:
        if mode is Mode.STREAM and faults:
            return
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / NAME).write_text(content)
        with (
            serve_directory(tmp_path / "served", faults=faults) as server,
            pytest.raises(SensoriumError, match=f"{command} {NAME}.* in the repository that is served") as caught,
        ):
            open_archive(SESSION, [server.url], mode=mode, downloads=tmp_path / "downloads", policy=IMPATIENT)
        assert found in str(caught.value)
        assert server.url_of(NAME) in str(caught.value)

    def test_in_an_archive(self, tmp_path: Path, content: str, command: str, found: str) -> None:
        members = {name: npy(array) for name, array in session_members().items()}
        victim = f"{SESSION.name}/data/videos/1.npy"
        path = write_zip(tmp_path / NAME, {**members, victim: content.encode()})
        with (
            SessionArchive.open(str(path)) as archive,
            pytest.raises(TrialError, match=f"{command} {victim}") as caught,
        ):
            archive.read_trial("videos", 1)
        assert found in str(caught.value)
        assert caught.value.trial == 1


@pytest.mark.parametrize("target", [f".git/annex/objects/X/Y/{KEY}/{KEY}", f"../.git/modules/a/annex/objects/1/{KEY}"])
def test_a_locked_file_without_content(tmp_path: Path, target: str) -> None:
    (tmp_path / NAME).symlink_to(target)
    match = (
        f"not fetched with git-annex: found a link to {KEY}, 10394857233 bytes; run `git annex get {tmp_path / NAME}`"
    )
    with pytest.raises(SensoriumError, match=match):
        open_archive(SESSION, [str(tmp_path)])


def test_a_locked_file_with_content_is_read(tmp_path: Path) -> None:
    content = tmp_path / ".git/annex/objects/X/Y" / KEY
    content.mkdir(parents=True)
    write_session(content).rename(content / KEY)
    (tmp_path / NAME).symlink_to(content / KEY)
    with open_archive(SESSION, [str(tmp_path)]) as archive:
        assert archive.trial_ids() == [0, 1, 10]


def test_another_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("elsewhere.zip")
    with pytest.raises(SensoriumError, match=r"leads nowhere: found a link to elsewhere\.zip"):
        open_archive(SESSION, [str(tmp_path)])


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"annex/objects", b"the annex/objects/x\0", b"/annex/objects/", b"\x93NUMPY"]
)
def test_other_content_is_no_pointer(content: bytes) -> None:
    assert find_pointer(content) is None
