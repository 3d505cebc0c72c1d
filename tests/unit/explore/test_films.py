"""A film in several cells of a notebook."""

from __future__ import annotations

import re

import pytest
import xarray as xr

from sensorium_data.explore.plots.animation import TrialAnimation


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
