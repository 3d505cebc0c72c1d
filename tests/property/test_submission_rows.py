"""Any set of trials, neurons and orders: written, read by pandas, validated, repaired."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.session_stores import HandMadeSession, TrialFacts, write_session_store
from sensorium_data.frames import MEMBER_NAMES
from sensorium_data.predictions import from_arrays
from sensorium_data.sessions import Tier
from sensorium_data.submission import repair_submission, validate_submission, write_submission

TEST_TIERS = tuple(tier for tier in Tier if tier.is_test)


@dataclass(frozen=True)
class Layout:
    """Trials of two sessions, in the order of their stores."""

    trials: dict[str, tuple[TrialFacts, ...]]
    n_neurons: dict[str, int]
    seed: int

    def write(self, root: Path) -> tuple[str, dict[str, HandMadeSession], dict[str, dict[int, np.ndarray]]]:
        """Write the stores; return their root, what is in them, and a prediction of every test trial."""
        made = {
            alias: write_session_store(root / "store", alias, trials, n_neurons=self.n_neurons[alias])
            for alias, trials in self.trials.items()
        }
        rng = np.random.default_rng(self.seed)
        values = {
            alias: {
                facts.trial: rng.gamma(1, 1, (session.neurons.size, facts.n_frames)).astype(np.float32)
                for facts in session.trials
                if facts.tier in TEST_TIERS
            }
            for alias, session in made.items()
        }
        return str(root / "store"), made, values


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    trials = {}
    for alias in ("G", "F"):
        # Every tier has a trial, and more of any; ids are in no order.
        more = draw(st.lists(st.sampled_from(tuple(Tier)), max_size=6))
        tiers = draw(st.permutations([*TEST_TIERS, *more]))
        ids = draw(st.lists(st.integers(0, 800), min_size=len(tiers), max_size=len(tiers), unique=True))
        lengths = draw(st.lists(st.integers(240, 326), min_size=len(tiers), max_size=len(tiers)))
        trials[alias] = tuple(
            TrialFacts(trial, str(tier), n) for trial, tier, n in zip(ids, tiers, lengths, strict=True)
        )
    n_neurons = {alias: draw(st.integers(1, 40)) for alias in trials}
    return Layout(trials, n_neurons, draw(st.integers(0, 2**32 - 1)))


@settings(max_examples=4, deadline=None)
@given(layout=layouts(), frames=st.sampled_from(["official", "50-298", "51-299"]))
def test_any_trials_are_written_validated_and_read_by_pandas(layout: Layout, frames: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, made, values = layout.write(Path(folder))
        from_arrays(f"{folder}/p", store, values, response_units="standardized")
        n_rows = 0
        for track in ("main", "bonus"):
            report = write_submission(f"{folder}/p", store, track=track, frames=frames, out=f"{folder}/out")
            assert validate_submission([f.path for f in report.files], store, frames=frames).passed
            for file in report.files:
                for member in file.members:
                    with zipfile.ZipFile(file.path) as archive:
                        table = pd.read_parquet(io.BytesIO(archive.read(member)))
                    for _, row in table.iterrows():
                        alias = next(alias for alias in made if made[alias].session.name == row["mouse"])
                        whole = values[alias][row["trial_indices"]]
                        cut = {
                            "official": whole[:, 50:],
                            "50-298": whole[:, :300][:, 50:-1],
                            "51-299": whole[:, :300][:, 51:],
                        }[frames]
                        assert np.array_equal(np.stack(row["prediction"].tolist()), cut)
                        assert np.array_equal(row["neuron_ids"], made[alias].neurons)
                        n_rows += 1
        assert n_rows == sum(map(len, values.values()))


@settings(max_examples=4, deadline=None)
@given(layout=layouts(), data=st.data())
def test_files_of_pandas_pass_in_any_order_and_come_out_of_a_repair_with_the_same_values(
    layout: Layout, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, made, values = layout.write(Path(folder))
        rows = {tier: [] for tier in TEST_TIERS}
        for alias, session in made.items():
            for facts in session.trials:
                if facts.tier in TEST_TIERS:
                    prediction = values[alias][facts.trial][:, 50:].astype(float)
                    label = data.draw(st.sampled_from([facts.trial, str(facts.trial), f"{facts.trial}.npy"]))
                    rows[Tier(facts.tier)].append((session.session.name, str(label), prediction, session.neurons))
        paths = []
        for tier, of_tier in rows.items():
            shuffled = data.draw(st.permutations(of_tier))
            frame = pd.DataFrame(
                {
                    "mouse": [row[0] for row in shuffled],
                    "trial_indices": [row[1] for row in shuffled],
                    "prediction": [row[2].tolist() for row in shuffled],
                    "neuron_ids": [row[3].tolist() for row in shuffled],
                }
            )
            paths.append(Path(folder, MEMBER_NAMES[tier]))
            frame.to_parquet(paths[-1], compression="brotli", engine="pyarrow", index=False)
        report = validate_submission(paths, store)
        assert report.passed, [str(violation) for violation in report.violations]
        repaired = repair_submission(paths, store, out=f"{folder}/out")
        assert repaired.validation.passed
        assert not repaired.left_out
        for path in repaired.files:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    table = pd.read_parquet(io.BytesIO(archive.read(member)))
                    labels = list(zip(table["mouse"], table["trial_indices"], strict=True))
                    assert labels == sorted(labels, key=lambda label: (label[0], label[1]))
                    for (name, trial), prediction in zip(labels, table["prediction"], strict=True):
                        alias = next(alias for alias in made if made[alias].session.name == name)
                        assert np.array_equal(np.stack(prediction.tolist()), values[alias][trial][:, 50:].astype(float))
