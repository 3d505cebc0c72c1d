"""Any sequence of writing, kills, damage, verification and resumption of predictions, with arrays as the model."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.errors import PredictionsError
from sensorium_data.predictions import (
    create_predictions,
    open_predictions,
    predictions_attributes,
    verify_predictions,
)
from sensorium_data.sessions import find_session
from sensorium_data.store import Store, open_store

N_FRAMES, N_PADDED, N_NEURONS, FIRST_FRAME = 9, 11, 3, 2
TRIALS = (3, 5, 8, 9)
SESSION = find_session("F")

#: Which file, where in it, and what happens to it.
damages = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from(["flip", "cut", "delete", "swap"]))


class InterruptionError(Exception):
    """Stands for whatever ends a run."""


@functools.cache
def recorded() -> Store:
    folder = Path(tempfile.mkdtemp())
    write_session_store(folder, "F", [TrialFacts(trial, "oracle", N_FRAMES) for trial in TRIALS], n_neurons=N_NEURONS)
    return open_store(folder)


@pytest.fixture(scope="module", autouse=True)
def _removed() -> object:
    yield
    shutil.rmtree(recorded().url)
    recorded.cache_clear()


def predict(trial: int) -> np.ndarray:
    """Return a trial's predictions, (neuron, time), NaN where nothing is predicted."""
    values = np.full((N_NEURONS, N_PADDED), np.nan, np.float32)
    values[:, FIRST_FRAME:N_FRAMES] = np.random.default_rng(trial).random((N_NEURONS, N_FRAMES - FIRST_FRAME))
    return values


def content_digest() -> str:
    digests = [[trial, hashlib.sha256(predict(trial).tobytes()).hexdigest()] for trial in TRIALS]
    return hashlib.sha256(json.dumps({SESSION.name: digests}).encode()).hexdigest()


class PredictionsMachine(RuleBasedStateMachine):
    """A predictions store, unfinished or finished; the model is what was predicted, and whether it was damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "predictions"
        self.partial = self.folder / "predictions.partial"
        self.is_damaged = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def is_finished(self) -> bool:
        return self.path.exists()

    # What a user does

    @precondition(lambda self: not self.is_finished)
    @rule(n_trials=st.integers(0, len(TRIALS)))
    def write(self, n_trials: int) -> None:
        with (
            contextlib.suppress(InterruptionError),
            create_predictions(
                str(self.path),
                store=recorded(),
                sessions=["F"],
                tiers=["oracle"],
                response_units="raw",
                identity="mine",
            ) as writer,
        ):
            missing = writer.missing_trials("F")
            for trial in missing[:n_trials]:
                writer.write_trial("F", trial, predict(trial)[:, FIRST_FRAME:N_FRAMES], FIRST_FRAME)
            if n_trials < len(missing):
                raise InterruptionError
        assert self.is_finished == (n_trials >= len(missing))

    @precondition(lambda self: self.is_finished)
    @rule()
    def verify(self) -> None:
        try:
            passed = verify_predictions(str(self.path), jobs=1).passed
        except PredictionsError:
            passed = False
        assert passed == (not self.is_damaged)

    @precondition(lambda self: self.is_finished)
    @rule()
    def remove(self) -> None:
        shutil.rmtree(self.path)
        self.is_damaged = False

    # What happens to it

    @precondition(lambda self: self.partial.exists())
    @rule(damage=damages)
    def damage_unfinished(self, damage: tuple[int, int, str]) -> None:
        # Without the root's metadata it is no predictions store that was begun, and is left alone.
        self._damage([path for path in self._files(self.partial) if path.name != "zarr.json"], damage)

    @precondition(lambda self: self.is_finished and not self.is_damaged)
    @rule(damage=damages)
    def damage_finished(self, damage: tuple[int, int, str]) -> None:
        self.is_damaged = self._damage(self._files(self.path), damage)

    # What must always hold

    @invariant()
    def what_is_read_is_what_was_predicted(self) -> None:
        if not self.is_finished:
            with pytest.raises(PredictionsError, match=r"unfinished|no predictions store"):
                open_predictions(str(self.path), "F")
            return
        try:
            predicted = open_predictions(str(self.path), "F").load()
        except PredictionsError:
            assert self.is_damaged
            return
        assert predicted.trial.values.tolist() == list(TRIALS)
        np.testing.assert_array_equal(predicted.predictions, np.stack([predict(trial) for trial in TRIALS]))
        assert predictions_attributes(str(self.path))["content_digest"] == content_digest()

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.is_file())

    @staticmethod
    def _damage(files: list[Path], damage: tuple[int, int, str]) -> bool:
        """Damage a file; return whether anything is another file's content or gone."""
        which, where, how = damage
        if not files:
            return False
        path = files[which % len(files)]
        data = bytearray(path.read_bytes())
        match how:
            case "flip":
                data[where % len(data)] ^= 1 + where % 255
                path.write_bytes(data)
            case "cut":
                path.write_bytes(data[: where % len(data)])
            case "delete":
                path.unlink()
            case "swap":
                other = files[where % len(files)]
                path.write_bytes(other.read_bytes())
                other.write_bytes(data)
                return path.read_bytes() != other.read_bytes()
        return True


TestPredictionsMachine = PredictionsMachine.TestCase
TestPredictionsMachine.settings = settings(
    max_examples=max(5, settings().max_examples // 12),
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
