"""Simulated sessions have the trials that the published ones have."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest

from sensorium_data.sessions import SESSIONS, Session, Stimulus, Tier, find_session
from sensorium_data.simulation.plan import SessionPlan, plan_session


@cache
def plan_full(alias: str) -> SessionPlan:
    return plan_session(find_session(alias), n_trials=None, n_neurons=None, seed=0)


def movies_of(plan: SessionPlan, *tiers: Tier) -> set[str]:
    return {trial.movie.id for trial in plan.trials if trial.tier in tiers}


@pytest.mark.parametrize("session", SESSIONS.values(), ids=lambda session: session.alias)
def test_counts_are_the_published_ones(session: Session) -> None:
    plan = plan_session(session, n_trials=None, n_neurons=None, seed=0)
    assert Counter(trial.tier for trial in plan.trials) == dict(session.n_trials_by_tier)
    assert plan.tiers.count("none") == session.n_unpublished_trials
    assert len(plan.tiers) == session.n_trials + session.n_unpublished_trials
    assert plan.n_neurons == session.n_neurons


def test_six_movies_ten_times_each() -> None:
    plan = plan_full("H")
    repeats = Counter(trial.movie.id for trial in plan.trials if trial.tier is Tier.ORACLE)
    assert sorted(repeats.values()) == [10] * 6


def test_small_simulations_keep_repeats_in_every_tier() -> None:
    plan = plan_session(find_session("F"), n_trials=36, n_neurons=5, seed=0)
    for tier in Tier:
        repeats = Counter(trial.movie.id for trial in plan.trials if trial.tier is tier)
        assert repeats, tier
        assert min(repeats.values()) == 1 if tier is Tier.TRAIN else min(repeats.values()) >= 2


@pytest.mark.parametrize("pair", ["AF", "BJ", "CG", "DH", "EI"])
def test_pairs_share_nearly_all_movies_and_training_movies_are_only_that(pair: str) -> None:
    first, second = plan_full(pair[0]), plan_full(pair[1])
    tests = [tier for tier in Tier if tier is not Tier.TRAIN]
    for tiers in ([Tier.TRAIN], tests):
        ours, theirs = movies_of(first, *tiers), movies_of(second, *tiers)
        same_class = {movie for movie in theirs if movie.split("/")[1] in {other.split("/")[1] for other in ours}}
        assert len(ours & theirs) > 0.85 * len(same_class)
    trained = movies_of(first, Tier.TRAIN) | movies_of(second, Tier.TRAIN)
    assert not trained & (movies_of(first, *tests) | movies_of(second, *tests))


def test_some_test_movies_sit_in_another_tier_for_the_other_mouse() -> None:
    first, second = plan_full("A"), plan_full("F")
    moved = movies_of(first, Tier.LIVE_TEST_MAIN) & movies_of(second, Tier.ORACLE)
    assert 0 < len(moved) < len(movies_of(first, Tier.LIVE_TEST_MAIN))
    assert movies_of(plan_full("B"), Tier.LIVE_TEST_BONUS) & movies_of(plan_full("J"), Tier.FINAL_TEST_BONUS)


def test_valid_lengths_are_those_of_the_stimulus() -> None:
    lengths: dict[Stimulus, set[int]] = {}
    for alias in "ABCDEFGHIJ":
        for trial in plan_full(alias).trials:
            if not trial.is_broken:
                lengths.setdefault(trial.movie.stimulus, set()).add(trial.n_frames)
    images = lengths.pop(Stimulus.NATURAL_IMAGES)
    assert min(images) >= 305
    assert max(images) <= 326
    assert len(images) > 5
    assert lengths == {
        Stimulus.NATURAL_VIDEO: {300},
        Stimulus.GABOR: {300},
        Stimulus.GAUSSIAN_DOT: {315},
        Stimulus.RANDOM_DOTS: {240},
        Stimulus.PINK_NOISE: {324},
    }


def test_the_two_broken_trials_have_their_published_ids() -> None:
    broken = {
        (alias, trial.trial, trial.tier, trial.n_frames)
        for alias in "ABCDEFGHIJ"
        for trial in plan_full(alias).trials
        if trial.is_broken
    }
    assert broken == {("D", 668, Tier.LIVE_TEST_BONUS, 403), ("J", 156, Tier.LIVE_TEST_BONUS, 414)}
    small = plan_session(find_session("D"), n_trials=36, n_neurons=5, seed=0)
    (trial,) = (trial for trial in small.trials if trial.is_broken)
    assert trial.tier is Tier.LIVE_TEST_BONUS
    assert trial.movie.id not in {other.movie.id for other in small.trials if other is not trial}


def test_only_new_sessions_withhold_responses_and_only_of_test_tiers() -> None:
    assert not any(trial.is_withheld for trial in plan_full("A").trials)
    for trial in plan_full("F").trials:
        assert trial.is_withheld == str(trial.tier).startswith(("live", "final"))


def test_ids_are_in_the_order_of_presentation_and_the_old_release_puts_images_last() -> None:
    for alias in "FG":
        places = [trial.presentation for trial in plan_full(alias).trials]
        assert places == sorted(places)
    is_image = [trial.movie.stimulus is Stimulus.NATURAL_IMAGES for trial in plan_full("C").trials]
    assert is_image == sorted(is_image)
    for images in (True, False):
        places = [
            trial.presentation for trial, image in zip(plan_full("C").trials, is_image, strict=True) if image is images
        ]
        assert places == sorted(places)


def test_session_e_lost_the_clip_at_place_579_and_later_ids_moved_up() -> None:
    for trial in plan_full("E").trials:
        assert trial.presentation == trial.trial + (trial.trial >= 579)


def test_an_image_trial_of_the_new_release_was_ten_in_the_recording() -> None:
    assert plan_full("C").trial_idx is None
    plan = plan_full("G")
    assert plan.trial_idx is not None
    numbers = [[int(number) for number in label.split("--")] for label in plan.trial_idx]
    for trial, own in zip(plan.trials, numbers, strict=True):
        is_image = trial.movie.stimulus is Stimulus.NATURAL_IMAGES
        assert own == list(range(own[0], own[0] + (10 if is_image else 1)))
    assert all(before[-1] < after[0] for before, after in itertools.pairwise(numbers))
    assert numbers[-1][-1] > len(plan.trials) + 9 * 50


@pytest.mark.parametrize("template", ["ACEFGI", "BDHJ"])
def test_two_templates_say_when_a_movie_is_shown_once(template: str) -> None:
    plans = [{t.presentation: t.tier is Tier.TRAIN for t in plan_full(alias).trials} for alias in template]
    for plan in plans[1:]:
        common = plan.keys() & plans[0].keys()
        assert np.mean([plan[place] == plans[0][place] for place in common]) > 0.99
    assert max(max(plan) for plan in plans) == (739 if template[0] == "A" else 719)


@pytest.mark.parametrize("pair", ["AF", "BJ", "CG", "DH", "EI"])
def test_a_pair_sees_one_sequence_of_movies(pair: str) -> None:
    first, second = ({t.presentation: t.movie.id for t in plan_full(alias).trials} for alias in pair)
    common = first.keys() & second.keys()
    assert np.mean([first[place] == second[place] for place in common]) > 0.95


@pytest.mark.parametrize(("alias", "duration_s"), [("A", 7326), ("B", 7293), ("C", 7286), ("D", 7320), ("E", 7281)])
def test_a_session_lasts_as_long_as_the_recording(alias: str, duration_s: int) -> None:
    assert plan_full(alias).n_frames / 29.967 == pytest.approx(duration_s, abs=10)
