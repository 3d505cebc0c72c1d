"""Where a session's files lie among names, and whose they are."""

from __future__ import annotations

import pytest

from sensorium_data.archive.layout import choose_root, find_roots, has_place, is_junk, trial_of
from sensorium_data.errors import ArchiveError
from sensorium_data.sessions import find_session

A, G = find_session("A"), find_session("G")
LAB = "dynamic1-2-3-Video-lab"


@pytest.mark.parametrize(
    ("names", "roots"),
    [
        (["data/videos/0.npy", "meta/trials/tiers.npy"], [""]),
        ([f"{A.name}/data/videos/0.npy", f"{A.name}/config.json", "README.md"], [f"{A.name}/"]),
        (["a/b/meta/neurons/unit_ids.npy"], ["a/b/"]),
        (["b/data/behavior/0.npy", "a/data/responses/0.npy"], ["a/", "b/"]),
        (["x/data/videos/0.npy", "x/x/data/videos/0.npy"], ["x/"]),  # the outer one has the other as something strange
        (["data/0.npy", "data/photos/0.npy", "meta/x", "videos/0.npy", "data/videos"], []),
        ([], []),
    ],
)
def test_roots_are_told_by_the_folders_of_the_layout(names: list[str], roots: list[str]) -> None:
    assert find_roots(names) == roots


@pytest.mark.parametrize(
    ("roots", "label", "expected"),
    [
        ([""], "mine", ""),
        ([""], A.name, ""),
        ([""], G.name, None),
        ([f"{A.name}/", f"{G.name}/"], "all", f"{A.name}/"),
        ([f"{A.name}/", "mouse/"], "all", f"{A.name}/"),
        ([f"{G.name}/", "mouse/"], "all", "mouse/"),
        ([f"{G.name}/"], A.name, None),  # the folder inside says more than the archive's name
        ([f"{LAB}/"], "all", None),
        ([f"{A.name}/files/"], "all", f"{A.name}/files/"),
        ([], A.name, None),
    ],
)
def test_the_session_s_own_root_is_chosen(roots: list[str], label: str, expected: str | None) -> None:
    assert choose_root(roots, label, A, path="here") == expected


@pytest.mark.parametrize("roots", [["one/", "other/"], [f"a/{A.name}/", f"b/{A.name}/"], ["", "mouse/"]])
def test_several_that_could_be_it_are_named(roots: list[str]) -> None:
    with pytest.raises(ArchiveError, match="several folders could be the session's") as caught:
        choose_root(roots, "all", A, path="here")
    for root in roots:
        assert (root.rstrip("/") or "the top") in str(caught.value.found)


def test_places_junk_and_trials_are_told_by_their_names() -> None:
    assert all(map(has_place, ["config.json", "meta/x.npy", "meta/trials/x/y.npy", "data/videos/0.npy"]))
    assert not any(map(has_place, ["README", "data/0.npy", "data/photos/0.npy", "meta", "x/data/videos/0.npy"]))
    assert all(map(is_junk, ["__MACOSX/x", "a/.DS_Store", "Thumbs.db", "data/videos/._0.npy", "desktop.ini"]))
    assert not any(map(is_junk, ["data/videos/0.npy", "a/_0.npy"]))
    assert trial_of("data/videos/7.npy") == trial_of("a/b/data/videos/7.npy") == 7
    assert trial_of("meta/7.npy") is None
