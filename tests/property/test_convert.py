"""Whatever an archive holds, its store holds the same to float32, and NaN where nothing was shown."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.extra.numpy as npst
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium_data.ingest import convert_session
from sensorium_data.movies import group_movies, sign_video
from sensorium_data.movies.grouping import same_movie
from sensorium_data.sessions import Tier
from sensorium_data.store import cast_values, open_session
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Archives of a few trials: any tiers, lengths, repeats, orders, precisions, holes and withheld responses."""
    tiers = draw(st.lists(st.sampled_from([*map(str, Tier), "none"]), min_size=1, max_size=5))
    tiers += ["train"]
    n_padded = draw(st.integers(1, 30))
    numbers = range(len(tiers))
    recording = make_recording(
        draw(st.sampled_from("AF")),
        tiers,
        n_frames={number: draw(st.integers(1, n_padded)) for number in numbers},
        movies={number: draw(st.integers(0, 2)) for number in numbers},
        n_neurons=draw(st.integers(1, 4)),
        n_padded=n_padded,
        seed=draw(st.integers(0, 100)),
    )
    for number in list(recording.trials):
        changes: dict[str, np.ndarray] = {}
        for name, array in recording.trials[number].arrays().items():
            changed = (
                array.astype(draw(st.sampled_from(["<f8", "<f4", ">f8"]))) if name != "responses" else array.copy()
            )
            if draw(st.booleans()):
                changed = np.asfortranarray(changed)
            if name != "videos" and draw(st.integers(0, 4)) == 0:
                changed[draw(st.integers(0, len(changed) - 1)), draw(st.integers(0, n_padded - 1))] = np.nan
            changes[name] = changed
        if draw(st.integers(0, 5)) == 0:
            changes["videos"][3, 4, draw(st.integers(0, n_padded - 1))] = draw(st.sampled_from([np.nan, np.inf]))
        recording = recording.with_trial(number, **changes)
    return recording


def count_valid_frames(video: np.ndarray) -> int:
    """Frames before the first that is not finite; none if a finite one comes after it."""
    finite = [bool(np.isfinite(video[..., frame]).all()) for frame in range(video.shape[-1])]
    n_frames = finite.index(False) if False in finite else len(finite)
    return 0 if True in finite[n_frames:] else n_frames


@given(recording=recordings(), jobs=st.integers(1, 4))
# Each example writes and converts an archive.
@settings(max_examples=settings().max_examples // 8, suppress_health_check=[HealthCheck.too_slow])
def test_a_store_holds_what_its_archive_holds(recording: Recording, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recording.write(Path(folder, "archives"))
        convert_session(recording.session, f"{folder}/store", source=f"{folder}/archives", jobs=jobs)
        dataset = open_session(f"{folder}/store", recording.session.alias).load()
    assert dataset.trial.values.tolist() == list(recording.trials)
    for number, trial in recording.trials.items():
        block = dataset.sel(trial=number)
        n_frames = count_valid_frames(trial.videos)
        withheld = not np.nan_to_num(trial.responses).any()
        assert block.tier.item() == recording.tiers[number]
        assert block.n_frames.item() == n_frames
        assert block.valid.item() == (n_frames > 0)
        assert block.responses_withheld.item() == withheld
        for name, array in trial.arrays().items():
            expected = array.astype(np.float32)
            expected[..., 0 if withheld and name == "responses" else n_frames :] = np.nan
            expected = expected.transpose(2, 0, 1) if name == "videos" else expected
            np.testing.assert_array_equal(block[name], expected)


@given(
    npst.arrays(
        np.float64,
        npst.array_shapes(min_dims=2, max_dims=3, max_side=9),
        elements=st.floats(-1e30, 1e30) | st.just(float("nan")) | st.just(float("inf")),
    )
)
def test_the_recorded_error_bounds_every_value(values: np.ndarray) -> None:
    stored = np.empty(values.shape, np.float32)
    largest = cast_values(values, stored)
    np.testing.assert_array_equal(stored, values.astype(np.float32))
    finite = np.isfinite(values)
    errors = [abs(float(value) - float(np.float32(value))) for value in values[finite]]
    assert largest == max(errors, default=0.0)


@given(
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    changed=st.lists(st.integers(0, 12), min_size=9, max_size=9),
    lengths=st.lists(st.sampled_from([0, 18, 38, 40]), min_size=9, max_size=9),
)
def test_the_signature_never_parts_repeats(seeds: list[int], changed: list[int], lengths: list[int]) -> None:
    videos = []
    for position, seed in enumerate(seeds):
        # Movies that differ little: no block's mean by more than a unit for some, every pixel for others.
        rng = np.random.default_rng(seed // 2)
        video = rng.uniform(100, 101.5 if seed % 2 else 255, (40, 36, 64)).astype(np.float32)
        frames = np.random.default_rng([position, 5]).choice(40, changed[position], replace=False)
        video[frames, 0, 0] += 9
        videos.append(video[: lengths[position]])
    labels = list(range(len(videos)))
    for _ in labels:
        for i, one in enumerate(videos):
            for j, other in enumerate(videos):
                if same_movie(one, other):
                    labels[i] = labels[j] = min(labels[i], labels[j])
    assert group_movies([sign_video(video) for video in videos], videos.__getitem__) == labels
