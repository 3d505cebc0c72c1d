"""Two sessions of a pair, simulated and ingested: their common movies are found, leaks are told, folds keep them apart.

The oracle is the simulation's plan, which knows the movie of every trial; nothing in the archives says it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from fixtures.simulation import SIZE
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies, report_leakage, split_by_movie
from sensorium_data.sessions import Tier, find_session
from sensorium_data.simulation.plan import TrialPlan, plan_session
from sensorium_data.store import LINKS_KEY, open_session

PAIR = ("A", "F")


@pytest.fixture(scope="module")
def pair_store(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Linked; ingested with the second session first. Not to be changed."""
    store = tmp_path_factory.mktemp("pair-store") / "store"
    for alias in reversed(PAIR):
        convert_session(find_session(alias), str(store), source=str(archives))
        link_movies(str(store))
    return str(store)


@pytest.fixture(scope="module")
def planned() -> dict[str, list[tuple[str, TrialPlan]]]:
    """The trials that show a movie, with their session, by the movie's name in the simulation."""
    shown = defaultdict(list)
    for alias in PAIR:
        for trial in plan_session(find_session(alias), **SIZE).trials:
            shown[trial.movie.id].append((alias, trial))
    return shown


def test_linked_ids_are_the_simulations_movies(
    pair_store: str, planned: dict[str, list[tuple[str, TrialPlan]]]
) -> None:
    datasets = {alias: open_session(pair_store, alias) for alias in PAIR}
    id_of = {
        name: {str(datasets[alias].movie_group.sel(trial=trial.trial).item()) for alias, trial in shown}
        for name, shown in planned.items()
    }
    assert all(len(ids) == 1 for ids in id_of.values()), "one movie, one id"
    assert len(set.union(*id_of.values())) == len(id_of), "one id, one movie"
    shared = [name for name, shown in planned.items() if len({alias for alias, _ in shown}) == 2]
    assert len(shared) > 0.9 * len(planned)


def test_the_class_of_every_trial_is_the_simulations(
    pair_store: str, planned: dict[str, list[tuple[str, TrialPlan]]]
) -> None:
    datasets = {alias: open_session(pair_store, alias) for alias in PAIR}
    for shown in planned.values():
        for alias, trial in shown:
            assert datasets[alias].stimulus.sel(trial=trial.trial).item() == trial.movie.stimulus


def test_leaks_are_the_test_movies_that_the_other_mouse_saw_with_published_responses(
    pair_store: str, planned: dict[str, list[tuple[str, TrialPlan]]]
) -> None:
    expected = set()
    for name, shown in planned.items():
        for alias, trial in shown:
            for other, seen in shown:
                if other != alias and trial.tier is not Tier.TRAIN and not seen.is_withheld:
                    expected.add((name, alias, str(trial.tier), other, str(seen.tier)))
    datasets = {alias: open_session(pair_store, alias) for alias in PAIR}
    names = {
        str(datasets[alias].movie_group.sel(trial=trial.trial).item()): name
        for name, shown in planned.items()
        for alias, trial in shown
    }
    report = report_leakage(pair_store)
    aliases = {find_session(alias).name: alias for alias in PAIR}
    found = {
        (names[k.movie_group], aliases[k.scored_session], k.scored_tier, aliases[k.trained_session], k.trained_tier)
        for k in report.leaks
    }
    assert found == expected
    assert report.n_leaks_from_train == 0, "training movies are only ever training movies"
    # A movie that is scored in the new session in a test tier, and was the old one's oracle, is among them.
    moved = {(scored, trained) for _, _, scored, other, trained in found if other == "A" and scored != trained}
    assert moved


def test_folds_hold_a_movie_of_both_mice_on_one_side(
    pair_store: str, planned: dict[str, list[tuple[str, TrialPlan]]]
) -> None:
    recordings = {alias: open_session(pair_store, alias) for alias in PAIR}
    name_of = {(alias, trial.trial): name for name, shown in planned.items() for alias, trial in shown}
    folds = split_by_movie(recordings, 4)
    for fold in folds:
        sides = [
            {name_of[alias, trial] for alias in PAIR for trial in side[alias]} for side in (fold.train, fold.validation)
        ]
        assert not sides[0] & sides[1]
        assert len(sides[1]) > 3
    for alias in PAIR:
        sizes = [len(fold.validation[alias]) for fold in folds]
        assert np.ptp(sizes) <= 1


@pytest.mark.slow  # tests/unit/movies/test_links.py does it with small sessions
def test_the_other_order_of_ingest_gives_the_same_ids(archives: Path, pair_store: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for alias in PAIR:
        convert_session(find_session(alias), str(store), source=str(archives))
    link_movies(str(store))
    path = store / LINKS_KEY
    assert path.read_bytes() == Path(pair_store, LINKS_KEY).read_bytes()
    for alias in PAIR:
        assert open_session(str(store), alias).movie_group.identical(open_session(pair_store, alias).movie_group)
    written = path.stat()
    link_movies(str(store))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
