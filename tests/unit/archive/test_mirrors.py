from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from aiohttp import web

from fixtures.archives import IMPATIENT, SESSION, session_members, write_session, write_zip
from sensorium_data.archive import Mode, SessionArchive, list_sessions, open_archive
from sensorium_data.archive.mirrors import default_downloads
from sensorium_data.errors import ArchiveError, DownloadError, RangesRefusedError, SourceError
from sensorium_data.sessions import find_session
from sensorium_data.testing import DirectoryServer, serve_directory
from sensorium_data.testing.faults import AnswerHtml, AnswerStatus, CompressBody, IgnoreRange

OTHER = find_session("G")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_session(tmp_path_factory.mktemp("archives")).parent


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


@pytest.fixture
def server(folder: Path) -> Iterator[DirectoryServer]:
    with serve_directory(folder) as server:
        yield server


@pytest.fixture
def whole_files(folder: Path) -> Iterator[DirectoryServer]:
    """A server that ignores ranges."""
    with serve_directory(folder, faults=[IgnoreRange()]) as server:
        yield server


def open_from(*sources: str, mode: Mode = Mode.AUTO, downloads: Path | None = None) -> SessionArchive:
    return open_archive(SESSION, sources, mode=mode, downloads=downloads, policy=IMPATIENT)


def assert_whole(archive: SessionArchive) -> None:
    assert archive.trial_ids() == [0, 1, 10]
    for name, array in session_members().items():
        np.testing.assert_array_equal(archive.read_array(name), array, strict=True)


class TestModes:
    @pytest.mark.parametrize("mode", [Mode.AUTO, Mode.STREAM])
    def test_a_server_with_ranges_is_read_in_place(self, server: DirectoryServer, downloads: Path, mode: Mode) -> None:
        with open_from(server.url, mode=mode, downloads=downloads) as archive:
            assert_whole(archive)
            assert archive.url == archive.origin == server.url_of(f"{SESSION.name}.zip")
        assert not downloads.exists()

    def test_a_download_is_made_where_asked_for(self, server: DirectoryServer, downloads: Path) -> None:
        with open_from(server.url, mode=Mode.STREAM) as archive:
            streamed = archive
        with open_from(server.url, mode=Mode.DOWNLOAD, downloads=downloads) as archive:
            assert_whole(archive)
            assert archive.url == str(downloads / f"{SESSION.name}.zip")
            # What a store records of its source does not depend on the way.
            for name in ("origin", "modified", "size_bytes", "digest"):
                assert getattr(archive, name) == getattr(streamed, name)

    def test_a_download_is_made_where_ranges_are_refused(self, whole_files: DirectoryServer, downloads: Path) -> None:
        with open_from(whole_files.url, downloads=downloads) as archive:
            assert_whole(archive)
            assert archive.origin == whole_files.url_of(f"{SESSION.name}.zip")
        before = Path(archive.url).stat()  # reading changes its time of access, and a write its time of change
        with open_from(whole_files.url, downloads=downloads) as archive:
            assert_whole(archive)
        after = Path(archive.url).stat()
        assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)  # it was there already

    def test_streaming_never_downloads(self, whole_files: DirectoryServer, downloads: Path) -> None:
        with pytest.raises(RangesRefusedError, match=r"ignores byte ranges.*--mode download"):
            open_from(whole_files.url, mode=Mode.STREAM, downloads=downloads)
        assert not downloads.exists()

    @pytest.mark.parametrize("mode", Mode)
    def test_local_archives_are_read_where_they_lie(self, folder: Path, downloads: Path, mode: Mode) -> None:
        path = folder / f"{SESSION.name}.zip"
        for source in (str(folder), str(path), folder.as_uri()):
            with open_from(source, mode=mode, downloads=downloads) as archive:
                assert_whole(archive)
        assert not downloads.exists()

    def test_downloads_are_kept_in_the_user_s_folder_for_caches(
        self, server: DirectoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with open_from(server.url, mode=Mode.DOWNLOAD) as archive:
            assert archive.url == str(tmp_path / "sensorium" / "archives" / f"{SESSION.name}.zip")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_downloads() == tmp_path / ".cache" / "sensorium" / "archives"


class TestOrder:
    def test_the_first_usable_source_is_taken(self, server: DirectoryServer, folder: Path, tmp_path: Path) -> None:
        (tmp_path / f"{SESSION.name}.zip").write_text("damaged")
        unusable = [str(tmp_path / "nowhere"), str(tmp_path), f"{server.url}/gone"]
        with open_from(*unusable, server.url, str(folder)) as archive:
            assert_whole(archive)
            assert archive.url == server.url_of(f"{SESSION.name}.zip")

    def test_sources_after_a_usable_one_are_not_asked(self, server: DirectoryServer, folder: Path) -> None:
        with open_from(str(folder), server.url):
            assert not server.requests

    @pytest.mark.parametrize("mode", Mode)
    def test_every_source_and_its_reason_is_named_when_none_is_usable(
        self, folder: Path, tmp_path: Path, mode: Mode
    ) -> None:
        write_session(tmp_path, OTHER).rename(tmp_path / f"{SESSION.name}.zip")
        with (
            serve_directory(folder, faults=[AnswerHtml()]) as captcha,
            serve_directory(folder, faults=[AnswerStatus(403)]) as closed,
            serve_directory(folder, faults=[CompressBody()]) as zipping,
        ):
            sources = ["/nowhere", captcha.url, closed.url, zipping.url, str(tmp_path)]
            with pytest.raises(SourceError, match="none of the 5 sources has a usable archive") as caught:
                open_from(*sources, mode=mode, downloads=tmp_path / "downloads")
        message = str(caught.value)
        for source, reason in zip(
            sources,
            [
                "there is no such file",
                "a web page, perhaps a captcha",
                "the server refuses access",
                "the server compresses",
                "another session's archive",
            ],
            strict=True,
        ):
            assert source in message
            assert reason in message
        assert caught.value.session == SESSION
        assert "\n" not in message

    def test_one_source_s_error_is_its_own(self, tmp_path: Path, folder: Path) -> None:
        with pytest.raises(SourceError) as alone:
            SessionArchive.open(str(tmp_path / f"{SESSION.name}.zip"), SESSION)
        with pytest.raises(SourceError) as caught:
            open_from(str(tmp_path))
        assert str(caught.value) == str(alone.value)
        (tmp_path / f"{SESSION.name}.zip").write_text("damaged")
        with pytest.raises(ArchiveError, match="this is no zip file"):
            open_from(str(tmp_path))

    def test_a_full_disk_is_not_answered_by_another_mirror(
        self, server: DirectoryServer, folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "no folder").write_text("")
        with pytest.raises(DownloadError, match="cannot be written"):
            open_from(server.url, str(folder), mode=Mode.DOWNLOAD, downloads=tmp_path / "no folder")

    def test_without_sources_the_published_place_is_asked(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve_directory(folder) as server:
            places = (server.url_of("gone.zip"), server.url_of(f"{SESSION.name}.zip"))
            monkeypatch.setattr(type(SESSION), "urls", places)
            with open_archive(SESSION, policy=IMPATIENT) as archive:
                assert archive.url == archive.origin == places[1]
                assert_whole(archive)

    def test_old_sessions_are_published_twice_the_whole_release_first(self) -> None:
        session = find_session("A")
        assert [url.split("/")[4] for url in session.urls] == ["sensorium_2023_data", "Sensorium2023Data"]
        assert session.url == session.urls[0]
        assert find_session("F").urls == (find_session("F").url,)
        assert find_session("dynamic1-2-3-Video-lab").urls == ()


class TestListSessions:
    NAMES = ("dynamic1-2-3-Video-lab", f"{SESSION.name}")

    @pytest.fixture
    def archives(self, tmp_path: Path) -> Path:
        folder = tmp_path / "my archives"
        (folder / "sub.zip").mkdir(parents=True)
        (folder / "sub.zip" / "deeper.zip").write_text("")
        for name in (*(f"{name}.zip" for name in self.NAMES), "README.md", "._hidden.zip", "a.zip.part"):
            (folder / name).write_text("")
        (folder / "sub.zip").rename(folder / "sub")
        return folder

    def test_a_folder(self, archives: Path) -> None:
        for source in (str(archives), f"{archives}/", f"file://{archives}"):
            assert list_sessions(source) == self.NAMES

    def test_another_file_system(self) -> None:
        filesystem = fsspec.filesystem("memory")
        for name in self.NAMES:
            filesystem.pipe(f"/bucket/{name}.zip", b"")
        try:
            assert list_sessions("memory://bucket") == self.NAMES
        finally:
            filesystem.store.clear()

    def test_a_server_s_page(self, archives: Path) -> None:
        async def show(request, handler):
            links = [
                f"{self.NAMES[0]}.zip?download=1",
                f"/my%20archives/{self.NAMES[1]}.zip",
                "../elsewhere.zip",
                "https://example.org/my%20archives/abroad.zip",
                "sub/deeper.zip",
                "README.md",
            ]
            page = "".join(f'<tr><td><A class="x" HREF="{link}">{link}</A></td></tr>' for link in links)
            assert request.query_string in ("", "token=1")
            return web.Response(text=f"<html><table>{page}<a>no link</a></table></html>", content_type="text/html")

        with serve_directory(archives.parent, faults=[show]) as server:
            for source in ("my%20archives", "my%20archives/", "my archives", "my%20archives?token=1"):
                assert list_sessions(f"{server.url}/{source}") == self.NAMES

    @pytest.mark.parametrize("faults", [[], [AnswerStatus(403)], [IgnoreRange()]])
    def test_a_server_that_shows_no_list(self, archives: Path, faults: list[AnswerStatus]) -> None:
        with serve_directory(archives, faults=faults) as server:
            assert list_sessions(server.url) == ()
            assert list_sessions(server.url_of("README.md")) == ()

    def test_an_archive_is_the_only_one_at_its_place(self) -> None:
        assert list_sessions("/somewhere/mine.zip") == ("mine",)
        assert list_sessions("https://example.org/x/mine.ZIP?token=1") == ("mine",)

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"gone: there is no such folder; check the --source"):
            list_sessions(str(tmp_path / "gone"))
        with serve_directory(tmp_path) as server:
            url = server.url
        with pytest.raises(SourceError, match="did not deliver in 3 attempts"):
            list_sessions(url, policy=IMPATIENT)
        for source in ("no-such-protocol://bucket", "http://[x/"):
            with pytest.raises(SourceError, match=r"cannot be listed|this is no URL"):
                list_sessions(source)


def test_a_session_beside_the_catalogue_s_can_be_opened_from_its_folder(tmp_path: Path) -> None:
    members = {name.replace(SESSION.name, OTHER.name): b"" for name in session_members()}
    write_zip(tmp_path / f"{OTHER.name}.zip", members, zipfile.ZIP_STORED)
    (name,) = list_sessions(str(tmp_path))
    with open_archive(find_session(name), [str(tmp_path)]) as archive:
        assert archive.name == name
