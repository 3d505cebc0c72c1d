"""Any sequence of conversions, interruptions, damage, repairs and changes of the source, with arrays as the model."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fixtures.stores import read_files
from sensorium_data.errors import StoreError
from sensorium_data.files import open_objects
from sensorium_data.ingest import ConversionReport, convert_session, verify_session
from sensorium_data.store import Precision, current_group, next_group, open_session, stored_sessions
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording, make_trial

TIERS = ["train", "oracle", "oracle", "live_test_main"]
N_FRAMES, N_PADDED = 20, 24


class InterruptionError(Exception):
    """Stands for whatever ends a run."""


class IngestMachine(RuleBasedStateMachine):
    """A store and its source; the model is what the source holds, and what the store should."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.folder / "store"
        self.source = make_recording("F", TIERS, movies={1: 9, 2: 9}, n_frames=N_FRAMES, n_padded=N_PADDED)
        self.pristine = self.source
        self.held: Recording | None = None
        self.flipped = self.resized = False
        self.precision = Precision.EXACT
        # What every published group consisted of, so that none is ever changed under its name.
        self.groups: dict[str, str] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(precision=st.sampled_from([Precision.EXACT, Precision.COMPACT]))
    def choose(self, precision: Precision) -> None:
        self.precision = precision
        self.source.write(self.folder / "archives")

    # What a user does

    def convert(self, **options: object) -> ConversionReport:
        return convert_session(
            self.source.session,
            str(self.store),
            source=str(self.folder / "archives"),
            precision=self.precision,
            **options,  # type: ignore[arg-type]
        )

    @rule(jobs=st.integers(1, 3))
    def ingest(self, jobs: int) -> None:
        if self.resized:
            with pytest.raises(StoreError, match=r"damaged.*--repair"):
                self.convert(jobs=jobs)
            return
        same = self._is_held()
        report = self.convert(jobs=jobs)
        assert report.status == ("already done" if same else "converted" if self.held is None else "updated")
        if not same:
            self._published()

    @precondition(lambda self: self.held is not None)
    @rule(jobs=st.integers(1, 2))
    def repair(self, jobs: int) -> None:
        was_damaged = self.flipped or self.resized
        same = self._is_held()
        report = self.convert(jobs=jobs, repairs=True)
        assert report.status == ("already done" if same and not was_damaged else "updated")
        if report.status != "already done":
            self._published()

    @precondition(lambda self: not self.resized)
    @rule()
    def two_at_once(self) -> None:
        same = self._is_held()
        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(run.result().status for run in [pool.submit(self.convert, jobs=2) for _ in range(2)])
        done = "converted" if self.held is None else "updated"
        assert statuses == (["already done"] * 2 if same else sorted(["already done", done]))
        if not same:
            self._published()

    @precondition(lambda self: not self.resized)
    @rule(n_trials=st.integers(0, 3))
    def interrupt(self, n_trials: int) -> None:
        def stop(label: str, n_done: int, n_total: int, **more: object) -> None:
            if label.startswith("convert") and n_done >= n_trials:
                raise InterruptionError

        before = self._group() if self.held is not None else None
        with contextlib.suppress(InterruptionError):
            assert self.convert(jobs=1, progress=stop).status == "already done"
        assert (self._group() if self.held is not None else None) == before

    @rule()
    def verify(self) -> None:
        if self.held is None:
            with pytest.raises(StoreError):
                verify_session(str(self.store), "F")
            return
        assert verify_session(str(self.store), "F").passed == (not self.flipped and not self.resized)

    # What happens to it

    @rule(trial=st.sampled_from([0, 1, 3]), seed=st.integers(0, 3))
    def change_source(self, trial: int, seed: int) -> None:
        video = self.pristine.trials[trial].videos[..., :N_FRAMES]
        tier = TIERS[trial]
        changed = make_trial(
            tier, video, n_neurons=5, n_padded=N_PADDED, seed=100 + seed, withheld=tier == "live_test_main"
        )
        self.source = self.source.with_trial(trial, **changed.arrays())
        self.source.write(self.folder / "archives")

    @precondition(lambda self: self.held is not None)
    @rule()
    def revert_source(self) -> None:
        assert self.held is not None
        self.source = self.held
        self.source.write(self.folder / "archives")

    @precondition(lambda self: self.held is not None and not self.flipped and not self.resized)
    @rule(which=st.integers(0, 10_000), how=st.sampled_from(["flip", "truncate", "delete"]))
    def damage(self, which: int, how: str) -> None:
        group = self.store / self._group()
        chunks = sorted(path for path in group.rglob("*") if path.is_file() and "/c/" in path.as_posix())
        path = chunks[which % len(chunks)]
        data = bytearray(path.read_bytes())
        match how:
            case "flip":
                data[which % len(data)] ^= 1
                path.write_bytes(data)
                self.flipped = True
            case "truncate":
                path.write_bytes(data[:-1])
                self.resized = True
            case "delete":
                path.unlink()
                self.resized = True
        self.groups[group.name] = _digest(group)

    # What must always hold

    @invariant()
    def groups_are_never_changed_under_their_names(self) -> None:
        for name, digest in self.groups.items():
            assert _digest(self.store / name) == digest

    @invariant()
    def the_store_holds_what_was_published_last(self) -> None:
        if self.resized or self.flipped:
            return
        if self.held is None:
            with pytest.raises(StoreError):
                open_session(str(self.store), "F")
            return
        assert [session.alias for session in stored_sessions(str(self.store))] == ["F"]
        dataset = open_session(str(self.store), "F").load()
        for number, trial in self.held.trials.items():
            block = dataset.sel(trial=number)
            for name, array in trial.arrays().items():
                withheld = name == "responses" and not array.any()
                n_valid = 0 if withheld else N_FRAMES
                expected = array.transpose(2, 0, 1) if name == "videos" else array
                stored = block[name].values
                valid = (slice(n_valid),) if name == "videos" else (slice(None), slice(n_valid))
                past = (slice(n_valid, None),) if name == "videos" else (slice(None), slice(n_valid, None))
                assert np.isnan(stored[past]).all()
                if self.precision is Precision.EXACT:
                    np.testing.assert_array_equal(stored[valid], expected[valid].astype(np.float32))
                else:
                    np.testing.assert_allclose(stored[valid], expected[valid], rtol=2.0**-11, atol=1 / 31)
        assert dataset.movie.values[1] == dataset.movie.values[2]

    def _is_held(self) -> bool:
        """Whether the source has what is published: changes may come to nothing."""
        if self.held is None:
            return False
        pairs = ((self.held.trials[number], trial) for number, trial in self.source.trials.items())
        return all(
            np.array_equal(held.arrays()[name], array, equal_nan=True)
            for held, trial in pairs
            for name, array in trial.arrays().items()
        )

    def _published(self) -> None:
        self.held = self.source
        self.flipped = self.resized = False
        group = self._group()
        assert not (self.store / ".partial").exists()
        assert group not in self.groups
        self.groups[group] = _digest(self.store / group)

    def _group(self) -> str:
        group = current_group(open_objects(str(self.store)), self.source.session)
        assert not (self.store / next_group(group)).exists()
        return group


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for key, data in read_files(folder).items():
        digest.update(key.encode() + b"\0" + data)
    return digest.hexdigest()


TestIngestMachine = IngestMachine.TestCase
TestIngestMachine.settings = settings(
    max_examples=max(5, settings().max_examples // 12),
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
