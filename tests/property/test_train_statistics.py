from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.recorded_stores import record_session
from sensorium_data.sessions import Tier
from sensorium_data.statistics.train_statistics import compute_train_statistics

NAMES = {"mean": np.nanmean, "std": np.nanstd, "min": np.nanmin, "max": np.nanmax}


@given(st.data())
@settings(max_examples=max(5, settings().max_examples // 16), suppress_health_check=[HealthCheck.too_slow])
def test_they_are_numpys_over_the_chosen_trials(data: st.DataObject) -> None:
    n_train, n_oracle = data.draw(st.integers(1, 12), "train"), data.draw(st.integers(1, 3), "oracle")
    indices = st.integers(0, n_train + n_oracle - 1)
    with tempfile.TemporaryDirectory() as folder:
        made = record_session(
            Path(folder),
            "F",
            n_neurons=data.draw(st.integers(1, 4), "neurons"),
            n_frames=5,
            n_by_tier={"train": n_train, "oracle": n_oracle},
            lengths=data.draw(st.dictionaries(indices, st.integers(1, 7)), "lengths"),
            broken=tuple(data.draw(st.sets(indices, max_size=n_train - 1), "broken")),
            seed=data.draw(st.integers(0, 100), "seed"),
            dtypes=data.draw(st.sampled_from([{}, {"videos": "float64", "responses": "float64"}]), "dtypes"),
        )
        tiers = data.draw(st.sampled_from([(Tier.TRAIN,), (Tier.TRAIN, Tier.ORACLE)]), "tiers")
        chosen = np.array([tier in tiers for tier in made.tiers]) & np.array(made.valid)
        if not chosen.any():
            return
        over_trials = compute_train_statistics(folder, "F", tiers=tiers, jobs=2)
        overall = compute_train_statistics(folder, "F", tiers=tiers, axes="trials and time", jobs=2)
    for variable, time_axis in {"videos": 1, "responses": 2, "behavior": 2, "pupil_center": 2}.items():
        values = getattr(made, variable)[chosen].astype(np.float64)
        for name, with_numpy in NAMES.items():
            with warnings.catch_warnings():
                # Frames past the end of every trial.
                warnings.simplefilter("ignore", RuntimeWarning)
                per_frame = with_numpy(values, axis=0)
            found = over_trials[variable].sel(statistic=name)
            np.testing.assert_allclose(found, per_frame, rtol=1e-10, atol=1e-10)
            found = overall[variable].sel(statistic=name)
            np.testing.assert_allclose(found, with_numpy(values, axis=(0, time_axis)), rtol=1e-10, atol=1e-10)
