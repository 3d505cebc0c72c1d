"""Submission files behind URLs, fetched for as long as they are looked at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sensorium_data.errors import SubmissionError
from sensorium_data.files import RemoteObjects, open_objects
from sensorium_data.frames import MAX_UPLOAD_SIZE_BYTES
from sensorium_data.progress import Progress, ignore_progress

__all__ = ["fetch_files"]


@contextmanager
def fetch_files(paths: Sequence[str], *, progress: Progress = ignore_progress) -> Iterator[list[str]]:
    """Give paths on this machine of submission files while the block runs.

    Parameters
    ----------
    paths : sequence of str
        Paths, which stay as they are, or any fsspec URLs, which are fetched into a temporary folder under their names.
    progress : Progress
        Told after each file that was fetched.

    Raises
    ------
    SubmissionError
        If a file is not there, or is larger than the server takes or the disk has room for.
    StoreError
        If a URL cannot be read.
    """
    remote = [path for path in paths if isinstance(open_objects(path), RemoteObjects)]
    with tempfile.TemporaryDirectory(prefix="sensorium-submission-") as temporary:
        fetched = {}
        for n_done, url in enumerate(remote, start=1):
            # A folder of its own for each, so that equal names stay what they are.
            folder = Path(temporary, str(n_done))
            folder.mkdir()
            fetched[url] = str(_fetch(url, folder))
            progress("fetch submission files", n_done, len(remote))
        yield [fetched.get(path, path) for path in paths]


def _fetch(url: str, folder: Path) -> Path:
    parent, _, name = url.rstrip("/").rpartition("/")
    place = open_objects(parent)
    size_bytes = place.size(name)
    if size_bytes is None or not isinstance(place, RemoteObjects):
        raise SubmissionError("there is no such file", path=url, remedy="check the URL")
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > min(MAX_UPLOAD_SIZE_BYTES, free_bytes):
        raise SubmissionError(
            "the file is too large to fetch",
            path=url,
            found=f"{size_bytes:,} bytes",
            expected=f"at most {MAX_UPLOAD_SIZE_BYTES:,}, and {free_bytes:,} are free in {folder.parent.parent}",
        )
    place.download(name, folder / name)
    return folder / name
