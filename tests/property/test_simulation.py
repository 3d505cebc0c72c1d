"""Zips, statistics and plans of a simulation hold for any input."""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sensorium_data.sessions import SESSIONS, Session, Tier
from sensorium_data.simulation import ZipWriter
from sensorium_data.simulation.frame_statistics import summarize_trials
from sensorium_data.simulation.plan import apportion_trials, plan_session
from sensorium_data.simulation.zip_writer import pack_member

NAMES = st.text(st.characters(categories=("L", "N"), include_characters="_-./ "), min_size=1, max_size=40).filter(
    lambda name: name == name.strip("/")
)


@given(
    content=st.dictionaries(NAMES, st.tuples(st.binary(max_size=2000), st.booleans()), max_size=8), zip64=st.booleans()
)
def test_zipfile_reads_what_was_written(content: dict[str, tuple[bytes, bool]], zip64: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.zip"
        with ZipWriter(path, zip64=zip64) as archive:
            for name, (data, deflate) in content.items():
                archive.write(pack_member(name, data, deflate=deflate))
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert {info.filename: archive.read(info) for info in archive.infolist()} == {
                name: data for name, (data, _) in content.items()
            }


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.one_of(st.just(float("nan")), st.floats(-1e4, 1e4, width=32)),
    )
)
@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning", "ignore:Mean of empty:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_statistics_over_trials_are_numpy_s(values: np.ndarray) -> None:
    wide = values.astype(np.float64)
    expected = {
        "mean": np.nanmean(wide, axis=0),
        "std": np.nanstd(wide, axis=0),
        "median": np.nanmedian(wide, axis=0),
        "min": np.nanmin(wide, axis=0),
        "max": np.nanmax(wide, axis=0),
    }
    found = summarize_trials(values)
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-9, atol=1e-9, err_msg=name)


@given(session=st.sampled_from(list(SESSIONS.values())), n_trials=st.integers(1, 800))
def test_every_number_of_trials_is_shared_out(session: Session, n_trials: int) -> None:
    counts = apportion_trials(session, n_trials)
    assert sum(counts.values()) == n_trials
    assert all(count >= 0 for count in counts.values())
    if n_trials >= 13:
        assert all(counts[tier] >= 2 * len(session.stimuli_of(tier)) for tier in Tier if tier is not Tier.TRAIN)
        assert counts[Tier.TRAIN] >= 1


@given(session=st.sampled_from(list(SESSIONS.values())), n_trials=st.integers(13, 800), seed=st.integers(0, 3))
def test_plans_repeat_what_is_no_training_movie(session: Session, n_trials: int, seed: int) -> None:
    plan = plan_session(session, n_trials=n_trials, n_neurons=3, seed=seed)
    assert len({trial.trial for trial in plan.trials}) == len(plan.trials) == n_trials
    shown = Counter((trial.tier, trial.movie.id) for trial in plan.trials if not trial.is_broken)
    for (tier, _), n_repeats in shown.items():
        assert n_repeats == 1 if tier is Tier.TRAIN else 2 <= n_repeats <= 10
    for trial in plan.trials:
        assert plan.tiers[trial.trial] == trial.tier
        assert trial.movie.stimulus in session.stimuli_of(trial.tier)
        assert trial.n_frames <= session.n_frames_padded
