"""The film of a trial, and the files that it is saved in."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.plots.animation import TrialAnimation


def test_a_film_shows_the_trial_and_is_one_page(dataset: xr.Dataset, tmp_path: Path) -> None:
    from PIL import Image

    film = dataset.sensorium.animate(0)
    page = film._repr_html_()
    frames = re.findall(r'"(/9j/[^"]+)"', page)
    # Every second frame of 300: pages with more become slow.
    assert len(frames) == 150
    assert film.interval_ms == pytest.approx(2000 / 30)
    assert "http" not in page
    first, later = (Image.open(io.BytesIO(base64.b64decode(frames[i]))) for i in (0, 75))
    assert first.size == (448, 416)
    assert np.abs(np.asarray(first, float) - np.asarray(later, float)).max() > 50
    gif = dataset.sensorium.animate(1).save(tmp_path / "film.gif")
    with Image.open(gif) as shown:
        assert shown.n_frames == 20
        assert shown.info["duration"] == 30
    dataset.sensorium.animate(1).save(gif)
    html = film.save(tmp_path / "film.html")
    assert frames[7] in html.read_text()


def test_a_film_that_is_shown_again_has_a_player_of_its_own_and_is_drawn_once(
    dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    render = TrialAnimation._render

    def count(film: TrialAnimation) -> object:
        drawn.append(film)
        return render(film)

    monkeypatch.setattr(TrialAnimation, "_render", count)
    film = dataset.sensorium.animate(1)
    pages = [film._repr_html_() for _ in range(2)]
    found = [re.findall(r'id="([^"]+)"|getElementById\("([^"]+)"\)', page) for page in pages]
    (first, first_found), (second, second_found) = (["".join(one) for one in names] for names in found)
    # A page in which both are shown has each name once.
    assert first == first_found != second == second_found
    assert len(drawn) == 1
    assert pages[0].replace(first, second) == pages[1]


def test_a_film_replaces_nothing_else(dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = dataset.sensorium.animate(1)
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(UsageError):
        film.save(mine)
    assert mine.read_text() == "<p>mine</p>"
    with pytest.raises(UsageError, match=r"\.html"):
        film.save(tmp_path / "film.avi")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ffmpeg"):
        film.save(tmp_path / "film.mp4")
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho cannot >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UsageError, match="cannot"):
        film.save(tmp_path / "film.mp4")
    # Every frame arrives as raw pixels, and the program's file is what is kept.
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\n')
    written = film.save(tmp_path / "film.mp4").read_bytes()
    assert int(written.split()[0]) == 20 * 448 * 416 * 3
    film.save(tmp_path / "film.mp4")
