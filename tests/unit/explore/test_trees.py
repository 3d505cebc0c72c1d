from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.recorded_stores import Recorded, record_links, record_session
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore import movie_responses
from sensorium_data.statistics import response_precision
from sensorium_data.store import SessionTree, open_session, open_sessions, open_store


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Recorded]]:
    store = tmp_path_factory.mktemp("store")
    sizes = {"train": 3, "oracle": 2, "live_test_main": 2}
    sessions = {alias: record_session(store, alias, n_by_tier=sizes) for alias in ("A", "B")}
    sessions["F"] = record_session(store, "F", n_by_tier=sizes | {"final_test_main": 1})
    record_links(store)
    return store, sessions


@pytest.fixture
def tree(recorded: tuple[Path, dict[str, Recorded]]) -> xr.DataTree:
    """Sessions whose movie m3 is the same in A and F, and shown twice in A; it is another one in B."""
    opened = open_sessions(recorded[0])
    nodes = {}
    for alias in "ABF":
        node = opened[alias].to_dataset()
        own = node.movie.values
        same = np.isin(own, ["m3", "m4"] if alias == "A" else ["m3"])
        groups = np.where(same & (alias != "B"), "A:m3", [f"{alias}:{one}" for one in own])
        nodes[node.attrs["session"]] = node.assign_coords(movie_group=("trial", groups))
    return SessionTree.from_dict(nodes)


def test_a_session_is_found_by_alias_and_by_name(recorded: tuple[Path, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    opened = open_sessions(store)
    name = sessions["F"].name
    assert opened["F"].name == opened[name].name == name
    assert opened["F/responses"].identical(opened[f"{name}/responses"])
    assert opened["f/statistics"].sizes["statistic"] == 5
    assert "F" in opened
    assert name in opened
    assert "C" not in opened
    assert open_store(store)["F"].attrs["session"] == name
    for missing in ("C", "nothing", "F/nothing"):
        with pytest.raises(KeyError):
            opened[missing]
    assert list(opened.children) == [sessions[alias].name for alias in "ABF"]


def test_sessions_trials_and_neurons_are_selected_at_once(tree: xr.DataTree) -> None:
    selected = tree.sensorium.select(session=["F", "old"], tier="oracle", depth=(-1000, 1000))
    assert [one.alias for one in selected.sensorium.sessions] == ["A", "B", "F"]
    for alias in "ABF":
        assert set(selected[alias].tier.values) == {"oracle"}
    assert [one.alias for one in tree.sensorium.select(session="new").sensorium.sessions] == ["F"]
    # A tier that one session alone has.
    assert [one.alias for one in tree.sensorium.select(tier="final_test_main").sensorium.sessions] == ["F"]
    assert set(tree.sensorium.select(tier="test")["F"].tier.values) == {"live_test_main", "final_test_main"}


def test_a_sessions_node_has_the_accessor_of_a_session(tree: xr.DataTree) -> None:
    selected = tree["F"].sensorium.select(tier="oracle")
    assert isinstance(selected, xr.Dataset)
    assert set(selected.tier.values) == {"oracle"}
    assert (
        tree["F"]
        .sensorium.responses_standardized()
        .identical(tree["F"].to_dataset().sensorium.responses_standardized())
    )


def test_statistics_stay_with_the_selected_sessions(recorded: tuple[Path, dict[str, Recorded]]) -> None:
    tree = open_sessions(recorded[0])
    middle = float(np.median(tree["F"].z))
    selected = tree.sensorium.select(session="F", tier="train", depth=(-1000, middle))
    assert 0 < selected["F"].sizes["neuron"] < tree["F"].sizes["neuron"]
    rows = np.isin(tree["F"].neuron, selected["F"].neuron)
    np.testing.assert_array_equal(selected["F/statistics"].responses, tree["F/statistics"].responses.values[:, rows])


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ({"session": "C"}, UsageError, "the session is not in the tree: found A, B, F"),
        ({"session": "Z"}, UnknownNameError, "unknown session"),
        ({"tier": "oracel"}, UnknownNameError, "did you mean oracle"),
        ({"stimulus": "gabor"}, UnknownNameError, "did you mean Gabor"),
        ({"movie": "nothing"}, UnknownNameError, "unknown movie"),
    ],
)
def test_names_that_mean_nothing_are_refused(words, error, match: str, tree: xr.DataTree) -> None:
    with pytest.raises(error, match=match):
        tree.sensorium.select(**words)


def test_tables_have_the_session_as_first_level(tree: xr.DataTree, recorded: tuple[Path, dict[str, Recorded]]) -> None:
    trials = tree.sensorium.trials
    assert trials.index.names == ["session", "trial"]
    assert len(trials) == 22
    assert trials.loc["F"].index.tolist() == list(recorded[1]["F"].trials)
    assert tree.sensorium.neurons.loc[("B", recorded[1]["B"].unit_ids[2]), "x"] == recorded[1]["B"].positions[2, 0]
    table = tree.sensorium.describe()
    assert table.loc[("F", "live_test_main", "NaturalVideo"), "withheld"] == 2
    assert table.trials.sum() == 22
    with pytest.raises(UsageError, match="the tree holds no session"):
        _ = xr.DataTree().sensorium.trials


def test_one_movies_responses_come_from_every_session_that_shows_it(
    tree: xr.DataTree, recorded: tuple[Path, dict[str, Recorded]]
) -> None:
    shown = {
        alias: [p for p in range(len(one.trials)) if p in places and not (alias == "F" and "test" in one.tiers[p])]
        for alias, places in (("A", (3, 4)), ("F", (3,)))
        for one in [recorded[1][alias]]
    }
    shown = {alias: places for alias, places in shown.items() if places}
    found = tree.sensorium.movie_responses("A:m3")
    assert list(found) == list(shown)
    for alias, places in shown.items():
        np.testing.assert_array_equal(found[alias], recorded[1][alias].responses[places][:, :, :70])
        assert found[alias].dims == ("trial", "neuron", "time")
        assert found[alias].chunks is not None


def test_a_movie_is_gathered_from_a_stores_path_too(recorded: tuple[Path, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    place = sessions["B"].tiers.index("oracle")
    found = movie_responses(store, str(open_session(store, "B").movie.values[place]))
    # The sessions' own ids are alike here, and no movie is shared: an id means what every session calls so.
    np.testing.assert_array_equal(found["B"][0], sessions["B"].responses[place, :, :70])


def test_a_movie_whose_responses_are_withheld_is_refused(tree: xr.DataTree, recorded) -> None:
    place = recorded[1]["F"].tiers.index("final_test_main")
    movie = str(tree["F"].movie_group.values[place])
    if movie != "A:m3":
        with pytest.raises(UsageError, match="no responses to the movie"):
            tree.sensorium.movie_responses(movie)
    with pytest.raises(UnknownNameError):
        tree.sensorium.movie_responses("nothing")


def test_responses_are_standardized_lazily_for_any_selection(recorded: tuple[Path, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    session = open_session(store, "F")
    precision = response_precision(sessions["F"].statistics["responses"][1])
    part = session.sensorium.select(tier="train").isel(neuron=[4, 1], time=slice(10, 40))
    found = part.sensorium.responses_standardized("competition")
    assert found.chunks is not None
    assert found.dims == ("trial", "neuron", "time")
    assert found.dtype == np.float32
    places = [sessions["F"].trials.index(trial) for trial in part.trial.values]
    expected = sessions["F"].responses[places][:, [4, 1], 10:40] * precision[[4, 1], 10:40]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.attrs["normalization"] == "competition"
    np.testing.assert_array_equal(session.sensorium.responses_standardized("none"), session.responses)
    # A session of a tree knows its store as well.
    node = open_sessions(store)["F"].to_dataset()
    np.testing.assert_array_equal(node.sensorium.responses_standardized(), session.sensorium.responses_standardized())


def test_what_cannot_be_standardized_is_refused_by_name(
    recorded: tuple[Path, dict[str, Recorded]], monkeypatch
) -> None:
    store, _ = recorded
    session = open_session(store, "F")
    with pytest.raises(UnknownNameError, match="did you mean competition"):
        session.sensorium.responses_standardized("competitive")
    homeless = session.where(session.valid)
    with pytest.raises(UsageError, match="does not say which store"):
        homeless.sensorium.responses_standardized()
    given = homeless.sensorium.responses_standardized(store=store)
    np.testing.assert_array_equal(given, session.sensorium.responses_standardized())
    strange = session.assign_coords(neuron=session.neuron + 1)
    with pytest.raises(UsageError, match="a neuron that the session's statistics lack"):
        strange.sensorium.responses_standardized()
    statistics = open_store(store).statistics("F").mean("time")
    monkeypatch.setattr("sensorium_data.store.Store.statistics", lambda store, name: statistics)
    with pytest.raises(UsageError, match="the normalization competition needs statistics of the responses at every"):
        session.sensorium.responses_standardized("competition")


def test_a_tree_shows_itself_as_a_table_in_notebooks(recorded: tuple[Path, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    page = open_sessions(store).sensorium._repr_html_()
    assert "3 sessions" in page
    for alias in "ABF":
        assert f"<td>{alias}</td><td>{sessions[alias].name}</td>" in page


def test_a_movie_that_is_no_name_is_a_usage_error(tree: xr.DataTree) -> None:
    with pytest.raises(UsageError, match="no name of a movie: found 3"):
        tree.sensorium.movie_responses(3)
