"""Whole trials from stores: as they were written, or an error that says which object is not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.recorded_stores import Recorded, record_session
from fixtures.session_stores import write_ledger
from sensorium_data.errors import SensoriumError, StoreError, TrialError, UsageError
from sensorium_data.files import ObjectCache, RetryPolicy
from sensorium_data.sessions import Tier
from sensorium_data.store import BlockDecoder
from sensorium_data.testing import serve_directory
from sensorium_data.testing.faults import AnswerStatus, CloseConnection, DropBody, FlipBit, OnPath, OnRequests
from sensorium_data.testing.server import Fault
from sensorium_data.windows import RecordedTrial, TrialReader

VARIABLES = ("videos", "responses", "behavior", "pupil_center")
LARGE = r"/(videos|responses)/c/"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    """A session's store; not to be changed."""
    root = tmp_path_factory.mktemp("store")
    return root, record_session(root, "F", lengths={0: 60, 3: 66}, broken=(5,))


@pytest.fixture
def own_store(pristine: tuple[Path, Recorded], tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(pristine[0], tmp_path / "store"))


@pytest.fixture
def without_waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No wait between attempts; the numbers of those that failed."""
    failed: list[int] = []

    def wait_s(policy: RetryPolicy, attempt: int, retry_after_s: float | None = None) -> float:
        failed.append(attempt)
        return 0.0

    monkeypatch.setattr(RetryPolicy, "wait_s", wait_s)
    return failed


def train_trial(made: Recorded) -> int:
    return next(t for t, tier, ok in zip(made.trials, made.tiers, made.valid, strict=True) if tier == "train" and ok)


def assert_as_written(trial: RecordedTrial, made: Recorded) -> None:
    position = made.position(trial.trial)
    n_frames = made.n_frames[position]
    assert trial.n_frames == n_frames
    np.testing.assert_array_equal(trial.videos, made.videos[position, :n_frames])
    for variable in VARIABLES[1:]:
        np.testing.assert_array_equal(getattr(trial, variable), getattr(made, variable)[position, :, :n_frames])


def test_trials_are_what_was_written(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    for cache_bytes in (0, 10**9):
        reader = TrialReader(str(store), ["F"], cache_bytes=cache_bytes)
        for _ in range(2):
            for trial, tier in zip(made.trials, made.tiers, strict=True):
                if "test" not in tier:
                    assert_as_written(reader.read("F", trial), made)


def test_responses_that_are_withheld_or_not_asked_for_are_none(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    withheld = made.trials[made.tiers.index("live_test_main")]
    reader = TrialReader(str(store), ["F"])
    assert reader.read("F", withheld).responses is None
    assert not reader.has_responses("F", withheld)
    without = TrialReader(str(store), ["F"], reads_responses=False)
    assert without.read("F", train_trial(made)).responses is None
    assert not without.has_responses("F", train_trial(made))


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_what_is_read_cannot_be_changed(pristine: tuple[Path, Recorded], cache_bytes: int) -> None:
    store, made = pristine
    trial = TrialReader(str(store), ["F"], cache_bytes=cache_bytes).read("F", train_trial(made))
    for variable in VARIABLES:
        with pytest.raises(ValueError, match="read-only"):
            getattr(trial, variable)[0] = 0


def test_time_runs_slowest_in_the_memory_of_a_trial_kept_or_not(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    for cache_bytes in (0, 10**9):
        trial = TrialReader(str(store), ["F"], cache_bytes=cache_bytes).read("F", train_trial(made))
        assert trial.videos.flags.c_contiguous
        assert trial.responses is not None
        assert trial.responses.T.flags.c_contiguous


def test_kept_trials_take_the_memory_that_is_counted(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    reader = TrialReader(str(store), ["F"], cache_bytes=10**9)
    total = 0
    for trial in made.trials[:4]:
        block = reader.read("F", trial)
        for variable in VARIABLES:
            array = getattr(block, variable)
            if array is not None:
                owner = array
                while owner.base is not None:
                    owner = owner.base
                assert owner.nbytes == array.nbytes
                total += owner.nbytes
    assert reader.cache.size_bytes == total


def test_a_kept_trial_is_not_read_again(pristine: tuple[Path, Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = pristine
    trial = train_trial(made)
    reader = TrialReader(str(store), ["F"], cache_bytes=10**9)
    first = reader.read("F", trial)

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(BlockDecoder, "decode", fail)
    assert reader.read("F", trial) is first
    with pytest.raises(AssertionError, match="read again"):
        TrialReader(str(store), ["F"], cache_bytes=0).read("F", trial)


# ---- which trials


def test_trials_are_chosen_by_tier_validity_and_id(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    reader = TrialReader(str(store), ["F"])

    def expected(tier: str) -> list[tuple[int, int]]:
        facts = zip(made.trials, made.n_frames, made.tiers, made.valid, strict=True)
        return [(trial, n_frames) for trial, n_frames, of_trial, valid in facts if of_trial == tier and valid]

    chosen = reader.select_trials("F", [Tier.TRAIN])
    assert chosen.session == made.name
    assert list(zip(chosen.trials, chosen.n_frames, strict=True)) == expected("train")
    assert not made.valid[5]
    assert made.trials[5] not in chosen.trials + reader.select_trials("F", [Tier.ORACLE]).trials

    some = {trial for trial, _ in expected("train")[1:4]}
    only = reader.select_trials("F", [Tier.TRAIN], only=some | {made.trials[5], 10**6})
    assert set(only.trials) == some
    assert reader.select_trials("F", [Tier.TRAIN], labelled=True) == chosen


def test_no_trial_left_is_an_error_that_says_what_was_asked_for(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    reader = TrialReader(str(store), ["F"])
    with pytest.raises(UsageError, match=r"no valid trial of tier final_test_bonus: found tiers .*train"):
        reader.select_trials("F", [Tier.FINAL_TEST_BONUS])
    with pytest.raises(UsageError, match=r"no valid trial of tier live_test_main with published responses"):
        reader.select_trials("F", [Tier.LIVE_TEST_MAIN], labelled=True)
    oracle = made.trials[made.tiers.index("oracle")]
    for only in ({oracle}, set()):
        with pytest.raises(UsageError, match=r"no valid trial of tier train among those chosen"):
            reader.select_trials("F", [Tier.TRAIN], only=only)


def test_wrong_requests_are_refused(pristine: tuple[Path, Recorded]) -> None:
    store, made = pristine
    reader = TrialReader(str(store), ["F"])
    with pytest.raises(TrialError, match=rf"trial 10000.*no such trial: found {len(made.trials)} trials"):
        reader.read("F", 10_000)
    with pytest.raises(UsageError, match=rf"was not opened: expected one of {made.name}"):
        reader.read("G", 0)
    with pytest.raises(UsageError, match="no session"):
        TrialReader(str(store), [])
    with pytest.raises(UsageError, match="thread"):
        TrialReader(str(store), ["F"], n_threads=0)
    with pytest.raises(UsageError, match="negative"):
        TrialReader(str(store), ["F"], cache_bytes=-1)
    with pytest.raises(SensoriumError):
        TrialReader(str(store), ["H"])


# ---- damage


def _flip(offset: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(offset * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return flip


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("variable", ["videos", "responses"])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_flip(0.0), "the CRC of its bytes differs"),
        (_flip(0.5), "the CRC of its bytes differs"),
        (_flip(0.99), "the CRC of its bytes differs"),
        (_flip(1.0), "the CRC of its bytes differs"),
        (_truncate, r"\d+ bytes in place of \d+"),
        (_empty, r"0 bytes in place of \d+"),
        (_lengthen, r"\d+ bytes in place of \d+"),
        (Path.unlink, "missing"),
    ],
    ids=["first byte", "middle byte", "late byte", "last byte", "truncated", "empty", "lengthened", "missing"],
)
def test_a_damaged_object_is_an_error_that_names_it(
    pristine: tuple[Path, Recorded], own_store: Path, variable: str, damage: Callable[[Path], None], found: str
) -> None:
    _, made = pristine
    trial = train_trial(made)
    folder = own_store / made.name / variable / "c" / str(made.position(trial))
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    reader = TrialReader(str(own_store), ["F"], cache_bytes=0)
    reader.read("F", trial)
    damage(path)
    where = rf"session F \({re.escape(made.name)}\), trial {trial}, {re.escape(str(path))}: the store is damaged"
    with pytest.raises(StoreError, match=rf"^{where}: found {found} in the array .*; .*sensorium verify.*--repair"):
        reader.read("F", trial)
    # Others are none the worse.
    other = next(t for t, tier in zip(made.trials, made.tiers, strict=True) if tier == "oracle")
    assert_as_written(reader.read("F", other), made)


def test_an_object_that_the_ledger_does_not_know_is_an_error(pristine: tuple[Path, Recorded], own_store: Path) -> None:
    _, made = pristine
    trial = train_trial(made)
    folder = own_store / made.name / "videos" / "c" / str(made.position(trial))
    aside = own_store.parent / "aside"
    folder.rename(aside)
    (own_store / made.name / "ledger.json").unlink()
    write_ledger(own_store / made.name)
    aside.rename(folder)
    with pytest.raises(StoreError, match=rf"trial {trial}, .*found not in the ledger"):
        TrialReader(str(own_store), ["F"]).read("F", trial)


NO_NUMBERS = [(variable, value) for variable in VARIABLES for value in (np.nan, np.inf, -np.inf)]


@pytest.fixture(scope="module")
def marred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    """A store whose n-th trial holds the n-th of NO_NUMBERS in two frames, and whose last one is sound."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        for index, (variable, value) in enumerate(NO_NUMBERS):
            np.moveaxis(arrays[variable][index], 0 if variable == "videos" else 1, 0)[[17, 21]] = value

    root = tmp_path_factory.mktemp("marred")
    return root, record_session(root, "G", n_frames=30, n_by_tier={"train": len(NO_NUMBERS) + 1}, change=change)


@pytest.mark.parametrize("index", range(len(NO_NUMBERS)), ids=lambda index: "{} {}".format(*NO_NUMBERS[index]))
def test_what_is_no_number_in_valid_frames_is_an_error_that_names_the_first_frame(
    marred: tuple[Path, Recorded], index: int
) -> None:
    store, made = marred
    variable, _ = NO_NUMBERS[index]
    reader = TrialReader(str(store), ["G"])
    n_in_frame = getattr(made, variable)[index].size // made.videos.shape[1]
    with pytest.raises(
        StoreError,
        match=rf"trial {made.trials[index]}, .*: {variable} holds values that are no numbers.*"
        rf"found {2 * n_in_frame} of {30 * n_in_frame}, the first in frame 17",
    ):
        reader.read("G", made.trials[index])
    assert_as_written(reader.read("G", made.trials[-1]), made)


def test_numbers_whose_sum_is_none_are_no_damage(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["responses"][0, :, :20] = np.finfo(np.float32).max

    made = record_session(tmp_path, "G", n_frames=30, n_by_tier={"train": 2, "oracle": 1}, change=change)
    with np.errstate(over="ignore"):
        assert_as_written(TrialReader(str(tmp_path), ["G"]).read("G", made.trials[0]), made)


# ---- stores elsewhere


@pytest.mark.parametrize(
    ("fault", "limit_bytes"),
    [
        (AnswerStatus(503), 10**9),
        (AnswerStatus(503), 0),
        (AnswerStatus(429), 10**9),
        (DropBody(1000), 10**9),
        (CloseConnection(), 10**9),
        (FlipBit(100), 10**9),
    ],
    ids=["503", "503, nothing kept", "429", "cut body", "closed connection", "flipped bit"],
)
def test_a_transient_failure_of_a_remote_store_is_survived(
    pristine: tuple[Path, Recorded], tmp_path: Path, without_waits: list[int], fault: Fault, limit_bytes: int
) -> None:
    store, made = pristine
    # Each of a trial's two large objects fails at first, the videos twice.
    faults = [OnPath(OnRequests(fault, 2), "/videos/c/"), OnPath(OnRequests(fault, 1), "/responses/c/")]
    with serve_directory(store, faults=faults) as server:
        object_cache = ObjectCache(tmp_path / "objects", limit_bytes)
        reader = TrialReader(server.url, ["F"], cache_bytes=0, object_cache=object_cache)
        assert_as_written(reader.read("F", train_trial(made)), made)
        n_requests = [
            sum(name in request.path for request in server.requests) for name in ("/videos/c/", "/responses/c/")
        ]
    assert n_requests == [3, 2]
    # The HTTP client itself asks again where a connection was closed; all else is the reader's.
    assert without_waits == [1, 2, 1] or isinstance(fault, CloseConnection)


@pytest.mark.parametrize("part", ["/zarr.json", "/trial/", "/behavior/c/", "ledger"])
def test_opening_a_remote_store_survives_a_transient_failure(
    pristine: tuple[Path, Recorded], tmp_path: Path, without_waits: list[int], part: str
) -> None:
    store, made = pristine
    with serve_directory(store, faults=[OnPath(OnRequests(AnswerStatus(503), 1), part)]) as server:
        reader = TrialReader(server.url, ["F"], object_cache=ObjectCache(tmp_path / "objects", 10**9))
        assert_as_written(reader.read("F", train_trial(made)), made)
    assert without_waits == [1]


def test_opening_what_is_not_in_a_remote_store_is_an_error_at_once(
    pristine: tuple[Path, Recorded], without_waits: list[int]
) -> None:
    store, _ = pristine
    with serve_directory(store) as server, pytest.raises(StoreError, match="the session is not in the store"):
        TrialReader(server.url, ["H"])
    assert without_waits == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (AnswerStatus(503), r"503"),
        (DropBody(1000), r"cannot be read"),
        (FlipBit(100), r"the store is damaged: found the CRC of its bytes differs"),
    ],
    ids=["503", "cut body", "flipped bit"],
)
def test_a_lasting_failure_of_a_remote_store_is_an_error_that_names_the_object(
    pristine: tuple[Path, Recorded], tmp_path: Path, without_waits: list[int], fault: Fault, message: str
) -> None:
    store, made = pristine
    with serve_directory(store, faults=[OnPath(fault, "/videos/c/")]) as server:
        reader = TrialReader(server.url, ["F"], object_cache=ObjectCache(tmp_path / "objects", 10**9))
        with pytest.raises(StoreError, match=rf"{re.escape(server.url)}/.*/videos/c/.*{message}"):
            reader.read("F", train_trial(made))
    assert without_waits == list(range(1, RetryPolicy().n_attempts))
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


def test_an_object_that_a_remote_store_lacks_is_an_error_at_once(
    pristine: tuple[Path, Recorded], own_store: Path, tmp_path: Path, without_waits: list[int]
) -> None:
    _, made = pristine
    trial = train_trial(made)
    shutil.rmtree(own_store / made.name / "responses" / "c" / str(made.position(trial)))
    with serve_directory(own_store) as server:
        reader = TrialReader(server.url, ["F"], object_cache=ObjectCache(tmp_path / "objects", 10**9))
        with pytest.raises(StoreError, match=rf"trial {trial}, {re.escape(server.url)}/.*/responses/c/.*found missing"):
            reader.read("F", trial)
    assert without_waits == []


def test_objects_of_a_remote_store_are_fetched_once_as_far_as_the_folder_allows(
    pristine: tuple[Path, Recorded], tmp_path: Path
) -> None:
    store, made = pristine
    trials = [trial for trial, tier in zip(made.trials, made.tiers, strict=True) if "test" not in tier]
    with serve_directory(store) as server:

        def count_requests() -> int:
            return sum(bool(re.search(LARGE, request.path)) for request in server.requests)

        folder = tmp_path / "objects"
        n_before = count_requests()
        for _ in range(3):
            reader = TrialReader(server.url, ["F"], cache_bytes=0, object_cache=ObjectCache(folder, 10**9))
            for trial in trials:
                assert_as_written(reader.read("F", trial), made)
        assert count_requests() - n_before == 2 * len(trials)

        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        small = tmp_path / "small"
        reader = TrialReader(server.url, ["F"], cache_bytes=0, object_cache=ObjectCache(small, size // 2))
        for trial in trials * 2:
            assert_as_written(reader.read("F", trial), made)
            assert sum(path.stat().st_size for path in small.rglob("*") if path.is_file()) <= size // 2


def test_a_store_on_a_local_disk_is_not_kept_a_second_time(pristine: tuple[Path, Recorded], tmp_path: Path) -> None:
    store, made = pristine
    reader = TrialReader(str(store), ["F"], object_cache=ObjectCache(tmp_path / "objects", 10**9))
    reader.read("F", train_trial(made))
    assert not (tmp_path / "objects").exists()
